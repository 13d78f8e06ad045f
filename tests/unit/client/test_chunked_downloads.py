"""Pulling engines as chunks: what is fetched, resumed or refused, and when all is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chunked_engines import SIZE, current_list, engine, in_chunks, pack_paths, pull, rebuilt
from support.goldens import raises_golden
from support.signed_repository import Signed

from zoo.client.engine_cache import forget_lists
from zoo.schema.layout import blob_key
from zoo.stores import LocalStore
from zoo.util import zstd
from zoo.util.errors import NoRangesError, RepositoryError


class Watched(LocalStore):
    """A store that lists the keys that are read, and may fail after some ranges."""

    ranges_left = 10**6
    has_ranges = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []
        self.ranges: list[tuple[str, int, int]] = []

    def fetch(self, key: str, *arguments: object, **options: object) -> None:
        self.fetched.append(key)
        super().fetch(key, *arguments, **options)  # type: ignore[arg-type]

    def read_range(self, key: str, first: int, length: int) -> bytes:
        if not self.has_ranges:
            raise NoRangesError(f"{key} only as a whole")
        if not self.ranges_left:
            raise RepositoryError("the cable was pulled")
        self.ranges_left -= 1
        self.ranges.append((key, first, length))
        return super().read_range(key, first, length)


@pytest.fixture
def updated(signed: Signed) -> Signed:
    """A repository with an engine, which the client "home" has, and a rebuilt one."""
    in_chunks(signed).release("m", engine())
    signed.pulled(signed.client())
    signed.release("m", rebuilt(engine()))
    return signed


def cached(signed: Signed) -> list[str]:
    return sorted(path.name for path in (signed.folder / "home/cache/engines").iterdir())


def test_an_update_fetches_what_is_new(updated: Signed) -> None:
    store = Watched(updated.folder / "store")
    pulled = pull(updated.client(store=store))
    assert pulled.engine.read_bytes() == rebuilt(engine())
    assert store.fetched == []
    assert pulled.transfer is not None
    assert pulled.transfer.fetched < 0.15 * len(engine())
    assert pulled.transfer.fetched >= sum(length for _, _, length in store.ranges) > 0
    assert pulled.transfer.reused > 0.9 * len(engine())
    assert pull(updated.client(store=store)).transfer is None


def test_the_first_download_is_whole(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    store = Watched(signed.folder / "store")
    pulled = pull(signed.client(store=store))
    assert store.ranges == []
    assert store.fetched == [blob_key(pulled.record.engine.sha256)]
    assert pulled.transfer is not None
    assert (pulled.transfer.fetched, pulled.transfer.reused) == (len(engine()), 0)


def test_what_compresses_well_comes_as_chunks(signed: Signed) -> None:
    content = b"".join(bytes([n % 250]) * 8000 + engine(n, 4000) for n in range(50))
    in_chunks(signed).release("m", content)
    pulled = pull(signed.client())
    assert pulled.engine.read_bytes() == content
    assert pulled.transfer is not None
    assert pulled.transfer.fetched < 0.5 * len(content)
    assert pulled.transfer.reused == 0


def test_the_whole_is_fetched_if_wanted(updated: Signed) -> None:
    store = Watched(updated.folder / "store")
    assert pull(updated.client(store=store), whole=True).engine.read_bytes() == rebuilt(engine())
    assert len(store.fetched) == 1


def test_a_file_of_the_user_is_a_seed(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    onnx = signed.folder / "model.onnx"
    onnx.write_bytes(b"a header" + engine() + b"a graph")
    pulled = pull(signed.client(), seeds=[onnx])
    assert pulled.engine.read_bytes() == engine()
    assert pulled.transfer is not None
    assert pulled.transfer.fetched < 0.3 * len(engine())


def test_an_engine_from_before_is_cut_here(signed: Signed) -> None:
    signed.release("m", engine())
    signed.pulled(signed.client())
    in_chunks(signed).release("m", rebuilt(engine()))
    pulled = pull(signed.client())
    assert pulled.transfer is not None
    assert pulled.transfer.fetched < 0.15 * len(engine())


def test_a_seed_that_changed_is_not_used(updated: Signed) -> None:
    (old,) = cached(updated)
    (updated.folder / "home/cache/engines" / old).write_bytes(bytes(len(engine())))
    pulled = pull(updated.client())
    assert pulled.engine.read_bytes() == rebuilt(engine())
    assert pulled.transfer is not None
    assert pulled.transfer.fetched > 0.9 * len(engine())


def test_an_interrupted_download_is_resumed(
    updated: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.repository.ranges.GAP", 0)
    monkeypatch.setattr("zoo.repository.ranges.PART", 1)
    content = engine(1, SIZE // 3) + engine()
    updated.release("m", content)
    store = Watched(updated.folder / "store")
    store.ranges_left = 2
    with pytest.raises(RepositoryError, match="cable"):
        pull(updated.client(store=store))
    first = list(store.ranges)
    assert len(first) == 2
    assert len(cached(updated)) == 2  # the old engine, and a part that has another name
    store.ranges_left = 10**6
    assert pull(updated.client(store=store)).engine.read_bytes() == content
    again = store.ranges[2:]
    assert again
    assert not set(first[:1]) & set(again)
    assert len(cached(updated)) == 2


def test_a_damaged_chunk_is_named(updated: Signed) -> None:
    before = cached(updated)
    path = pack_paths(updated)[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with raises_golden(RepositoryError, "client/damaged-chunk", match=path.name):
        pull(updated.client())
    assert [name for name in cached(updated) if name in before or len(name) == 64] == before
    assert pull(updated.client(), whole=True).engine.read_bytes() == rebuilt(engine())


def test_a_truncated_pack_is_named(updated: Signed) -> None:
    path = pack_paths(updated)[-1]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RepositoryError, match=path.name):
        pull(updated.client())


def test_a_damaged_list_is_named(updated: Signed) -> None:
    (entry, *_) = updated.client("reader").model("m").current
    assert entry.chunks is not None
    path = updated.path(blob_key(entry.chunks.sha256))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with raises_golden(RepositoryError, "client/damaged-list", match=path.name):
        pull(updated.client())


@pytest.mark.parametrize("lost", ["pack", "list", "ranges", "zstd"])
def test_without_chunks_the_whole_is_fetched(
    updated: Signed, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Watched(updated.folder / "store")
    if lost == "pack":
        pack_paths(updated)[-1].unlink()
    elif lost == "list":
        (entry, *_) = updated.client("reader").model("m").current
        assert entry.chunks is not None
        updated.path(blob_key(entry.chunks.sha256)).unlink()
    elif lost == "ranges":
        store.has_ranges = False
    else:
        monkeypatch.setattr(zstd, "is_installed", lambda: False)
    pulled = pull(updated.client(store=store))
    assert pulled.engine.read_bytes() == rebuilt(engine())
    assert store.fetched == [blob_key(pulled.record.engine.sha256)]
    assert len(cached(updated)) == 2


def test_readers_that_know_no_chunks_get_the_whole(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    whole = current_list(signed).whole
    assert signed.store.get(blob_key(whole.sha256)) == engine()


def test_lists_leave_the_cache_with_their_engines(updated: Signed) -> None:
    pull(updated.client())
    cache = updated.folder / "home/cache"
    lists = sorted(path.name for path in (cache / "chunks").iterdir())
    assert lists == cached(updated)
    (cache / "engines" / lists[0]).unlink()
    forget_lists(cache)
    assert [path.name for path in (cache / "chunks").iterdir()] == lists[1:]
