"""Mirrors of repositories whose keys were rotated, and of those that change meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.goldens import raises_golden
from support.signed_repository import Signed

from benchmarks.races import mirrors
from builders.publish.keys import Role, new_key
from builders.publish.tuf_metadata import SignedMetadata
from zoo.client.mirror import Filter, mirror
from zoo.stores import LocalStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError


def rotate(signed: Signed, role: Role) -> None:
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    metadata.rotate(role, new_key(signed.ring.folder, role, None))


@pytest.fixture
def rotated(tmp_path: Path) -> Signed:
    """A repository whose third root is trusted by its maintainers."""
    signed = Signed(tmp_path / "source")
    signed.release()
    rotate(signed, "publisher")
    rotate(signed, "root")
    return signed


def test_readers_on_any_root_read_a_mirror(rotated: Signed, tmp_path: Path) -> None:
    first = rotated.store.get("metadata/1.root.json")
    copy = LocalStore(tmp_path / "mirror")
    mirror(rotated.client("maintainer"), copy, Filter())  # trusts root 3 alone
    for version in (1, 2, 3):
        root = rotated.store.get(f"metadata/{version}.root.json")
        assert copy.get(f"metadata/{version}.root.json") == root
        reader = rotated.client(f"reader {version}", store=copy, root=root)
        assert rotated.pulled(reader) == b"engine"
    assert sha256_bytes(copy.get("metadata/1.root.json")) == sha256_bytes(first)


def test_a_root_that_did_not_sign_the_next_is_not_mirrored(rotated: Signed, tmp_path: Path) -> None:
    other = Signed(tmp_path / "other")
    other.release()
    rotated.store.put("metadata/1.root.json", other.store.get("metadata/1.root.json"))
    copy, said = LocalStore(tmp_path / "mirror"), []
    mirror(rotated.client("maintainer"), copy, Filter(), said.append)
    assert copy.size("metadata/1.root.json") is None
    assert copy.size("metadata/2.root.json") is not None
    assert any("metadata/2.root.json" in line for line in said)


@pytest.mark.parametrize("kept", ["metadata/1.root.json", "metadata/3.root.json", ""])
def test_nothing_is_mirrored_over_another_repository(
    rotated: Signed, tmp_path: Path, kept: str
) -> None:
    copy = LocalStore(tmp_path / "mirror")
    mirror(rotated.client("maintainer"), copy, Filter())
    for version in (1, 2, 3):  # as mirrors of version 0.1 were
        if (key := f"metadata/{version}.root.json") != kept:
            copy.delete(key)
    before = {entry.key: copy.get(entry.key) for entry in copy.list("")}
    other = Signed(tmp_path / "other")
    other.release("n", b"other engine")
    with raises_golden(RepositoryError, "client/mirror-over-another"):
        mirror(other.client(), copy, Filter())
    assert {entry.key: copy.get(entry.key) for entry in copy.list("")} == before
    if kept:
        mirror(rotated.client("maintainer"), copy, Filter())  # completes its roots
        assert copy.size("metadata/1.root.json") is not None


def test_nothing_is_mirrored_over_work_that_waits_for_a_signature(
    rotated: Signed, tmp_path: Path
) -> None:
    other = Signed(tmp_path / "other")
    other.propose(other.build())
    with raises_golden(RepositoryError, "client/mirror-over-unsigned"):
        mirror(rotated.client(), other.store, Filter())
    assert other.store.size("metadata/1.root.json") is None


def test_mirrors_made_during_rotations_refreshes_and_collections_are_readable(
    tmp_path: Path,
) -> None:
    assert mirrors(tmp_path / "race", 6) == []
