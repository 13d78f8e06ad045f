"""Mirrors: a copy of a repository, or of a part, that is trusted as the repository is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.chunked_engines import engine, in_chunks, pack_paths, pull, rebuilt
from support.goldens import assert_golden, raises_golden
from support.signed_repository import Signed, release_of_later_version

from zoo.client.mirror import Filter, mirror
from zoo.schema.layout import blob_key, record_key
from zoo.stores import LocalStore, Progress
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError


def test_a_mirror_is_trusted_as_the_repository_is(signed: Signed) -> None:
    signed.release("m", b"engine")
    signed.release("other", b"other engine")
    copy = LocalStore(signed.folder / "mirror")
    client = signed.client()
    done = mirror(client, copy, Filter())
    assert done.engines == 2
    assert signed.pulled(signed.client("far", store=copy), "other") == b"other engine"
    assert mirror(client, copy, Filter()).copied == 0
    blob = copy.local_path(blob_key(sha256_bytes(b"other engine")))
    assert blob is not None
    blob.write_bytes(b"OTHER ENGINE")
    assert mirror(client, copy, Filter()).copied == 1
    assert blob.read_bytes() == b"other engine"
    signed.release("m", b"newer")
    mirror(signed.client("again"), copy, Filter())
    assert signed.pulled(signed.client("far", store=copy)) == b"newer"


def test_a_part_is_mirrored(signed: Signed) -> None:
    signed.release("m", b"engine")
    signed.release("other", b"other engine")
    copy = LocalStore(signed.folder / "mirror")
    mirror(signed.client(), copy, Filter(models=["m"]))
    far = signed.client("far", store=copy)
    assert signed.pulled(far) == b"engine"
    with raises_golden(RepositoryError, "repository/mirror-without-model", match="other"):
        far.model("other")


def test_an_engine_of_a_later_version_is_mirrored(signed: Signed) -> None:
    signed.release("m", b"engine")
    later = release_of_later_version(signed)
    copy, said = LocalStore(signed.folder / "mirror"), list[str]()
    assert mirror(signed.client(), copy, Filter(), said.append).engines == 2
    assert_golden("repository/mirror-of-later-version", "\n".join(said))
    for blob in later.blobs:
        assert copy.size(blob_key(blob.sha256)) == blob.size
    key = record_key("m", later.key)
    assert copy.get(key) == signed.store.get(key)
    assert signed.pulled(signed.client("far", store=copy)) == b"engine"


def test_a_changed_record_of_a_later_version_is_not_mirrored(signed: Signed) -> None:
    signed.release("m", b"engine")
    later = release_of_later_version(signed)
    path = signed.path(record_key("m", later.key))
    path.write_bytes(path.read_bytes().replace(b"fp4", b"fp3"))
    with raises_golden(RepositoryError, "repository/mirror-of-changed-later", match=later.key):
        mirror(signed.client(), LocalStore(signed.folder / "mirror"), Filter())


def test_an_engine_that_was_changed_is_not_mirrored(signed: Signed) -> None:
    signed.blob_path(signed.release()).write_bytes(b"ENGINE")
    copy = LocalStore(signed.folder / "mirror")
    with raises_golden(RepositoryError, "repository/mirror-of-damaged"):
        mirror(signed.client(), copy, Filter())
    assert copy.size("metadata/timestamp.json") is None


def test_a_mirror_is_not_written_over_another_repository(signed: Signed) -> None:
    signed.release()
    other = Signed(signed.folder / "other")
    other.release(content=b"theirs")
    with raises_golden(RepositoryError, "repository/mirror-over-another"):
        mirror(signed.client(), other.store, Filter())
    assert other.pulled(other.client()) == b"theirs"


class Interrupted(LocalStore):
    """A store whose cable is pulled in the middle of every large object, once."""

    cuts = 1
    sent = 0

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        def count(more: int) -> None:
            self.sent += more
            if self.sent >= 2 << 20 and self.cuts:
                self.cuts -= 1
                raise RepositoryError("the cable was pulled")

        super().fetch(key, path, size=size, progress=count)


def test_a_mirror_goes_on_in_the_middle_of_a_blob(signed: Signed) -> None:
    engine = os.urandom(4 << 20)
    signed.release(content=engine)
    source, copy = Interrupted(signed.folder / "store"), LocalStore(signed.folder / "mirror")
    with pytest.raises(RepositoryError, match="cable"):
        mirror(signed.client(store=source), copy, Filter())
    before = source.sent
    assert mirror(signed.client(store=source), copy, Filter()).engines == 1
    assert source.sent - before < 3 << 20  # and not the four that it has
    assert signed.pulled(signed.client("far", store=copy)) == engine
    assert not list((signed.folder / "home/cache/engines").iterdir())


def test_chunks_are_mirrored(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    copy = LocalStore(signed.folder / "mirror")
    mirror(signed.client(), copy, Filter())
    far = signed.client("far", store=copy)
    signed.pulled(far)
    signed.release("m", rebuilt(engine()))
    mirror(signed.client("again"), copy, Filter())
    pulled = pull(signed.client("far", store=copy))
    assert pulled.engine.read_bytes() == rebuilt(engine())
    assert pulled.transfer is not None
    assert pulled.transfer.fetched < 0.2 * len(engine())
    assert mirror(signed.client("again"), copy, Filter()).copied == 0


@pytest.mark.parametrize("lost", ["pack", "list"])
def test_a_mirror_does_without_chunks_that_are_missing(signed: Signed, lost: str) -> None:
    in_chunks(signed).release("m", engine())
    (entry,) = signed.client().model("m").current
    assert entry.chunks is not None
    path = pack_paths(signed)[0] if lost == "pack" else signed.path(blob_key(entry.chunks.sha256))
    path.unlink()
    copy, said = LocalStore(signed.folder / "mirror"), list[str]()
    assert mirror(signed.client(), copy, Filter(), said.append).engines == 1
    assert_golden("repository/mirror-without-chunks", "\n".join(said))
    assert copy.size(blob_key(entry.chunks.sha256)) is None
    assert signed.pulled(signed.client("far", store=copy)) == engine()
