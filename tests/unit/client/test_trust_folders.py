"""The shared folder of verified files, and the folder of each process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.client.trust_folders import TrustFolders, is_intact
from zoo.util.digest import sha256_bytes

DATA = b"{}"


def metadata(version: int) -> bytes:
    return json.dumps({"signed": {"version": version}}).encode()


def started(shared: Path) -> TrustFolders:
    folders = TrustFolders(shared)
    folders.start()
    folders.metadata.mkdir(parents=True, exist_ok=True)
    return folders


def test_a_copy_is_shared_and_checked(tmp_path: Path) -> None:
    started(tmp_path).keep_copy("index/a.json", DATA, sha256_bytes(DATA))
    other = started(tmp_path)
    assert other.read_copy("index/a.json", sha256_bytes(DATA)) == DATA
    assert other.read_copy("index/a.json", "0" * 64) is None
    cached = other.copy_of("index/a.json")
    assert cached is not None
    assert is_intact(cached)
    cached.write_bytes(b"[]")
    assert not is_intact(cached)
    cached.with_name(f"{cached.name}.sha256").write_bytes(b"\xff")
    assert not is_intact(cached)
    assert other.read_copy("index/a.json", sha256_bytes(DATA)) is None
    assert other.copy_of("index/b.json") is None


def test_a_copy_without_a_digest_counts(tmp_path: Path) -> None:
    """Earlier versions kept none."""
    folders = started(tmp_path)
    folders.keep_copy("index.json", DATA, sha256_bytes(DATA))
    cached = folders.copy_of("index.json")
    assert cached is not None
    cached.with_name("index.json.sha256").unlink()
    assert is_intact(cached)
    assert folders.read_copy("index.json", sha256_bytes(DATA)) is None


@pytest.mark.parametrize(("mine", "shared"), [(3, 3), (1, 2), (2, 2)])
def test_the_later_version_is_shared(tmp_path: Path, mine: int, shared: int) -> None:
    second = started(tmp_path)
    first = started(tmp_path)
    (first.metadata / "timestamp.json").write_bytes(metadata(2))
    first.share()
    (second.metadata / "timestamp.json").write_bytes(metadata(mine))
    second.share()
    assert (tmp_path / "metadata" / "timestamp.json").read_bytes() == metadata(shared)
    assert (second.metadata / "timestamp.json").read_bytes() == metadata(mine)


def test_a_damaged_shared_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "timestamp.json").write_bytes(b"not JSON")
    folders = started(tmp_path)
    (folders.metadata / "timestamp.json").write_bytes(metadata(1))
    folders.share()
    assert (tmp_path / "metadata" / "timestamp.json").read_bytes() == metadata(1)


def test_a_process_starts_with_what_is_shared(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "root.json").write_bytes(metadata(7))
    folders = TrustFolders(tmp_path)
    assert folders.metadata == tmp_path / "metadata"
    folders.start()
    assert folders.metadata != tmp_path / "metadata"
    assert (folders.metadata / "root.json").read_bytes() == metadata(7)
