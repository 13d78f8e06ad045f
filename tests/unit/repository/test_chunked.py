"""Chunks: how files are cut, what lists of chunks may say, which ranges are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.chunked_engines import current_list, engine, in_chunks, rebuilt
from support.goldens import raises_golden
from support.signed_repository import Signed

from zoo.repository.assembly import Place
from zoo.repository.chunked import cost, packed, places_in, unpacked
from zoo.repository.ranges import GAP, SPARE, Span, connections, enough_requests, spans
from zoo.schema.chunks import LARGEST_CHUNK, Chunk, ChunkList
from zoo.schema.records import Blob
from zoo.stores import MemoryStore
from zoo.stores.transfer import PART, WORKERS
from zoo.util import zstd
from zoo.util.cuts import LARGEST, cut
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError


def test_chunks_make_up_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := engine())
    cuts = list(cut(path))
    assert b"".join(data for _, data in cuts) == content
    assert [offset for offset, _ in cuts][1] == len(cuts[0][1])
    assert max(len(data) for _, data in cuts) <= LARGEST
    path.write_bytes(b"")
    assert list(cut(path)) == []


def test_cuts_move_with_the_content(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(content := engine())
    other.write_bytes(rebuilt(content))
    known = {data for _, data in cut(path)}
    new = sum(len(data) for _, data in cut(other) if data not in known)
    assert new < 0.15 * len(content)


def test_a_frame_is_no_larger_than_it_says() -> None:
    frame = zstd.compress(bytes(1 << 20), 3)
    assert zstd.decompress(frame, 1 << 20) == bytes(1 << 20)
    for wrong in (frame[:-1], frame + b"more", b"nothing of the kind", b""):
        with pytest.raises(ValueError):  # noqa: PT011
            zstd.decompress(wrong, 1 << 20)
    with pytest.raises(ValueError, match="at most"):
        zstd.decompress(frame, 1000)


@pytest.mark.parametrize(
    "size", [1, 255, zstd.SMALLEST_AS_IS, 5000, LARGEST, zstd.LARGEST_AS_IS, 70_000]
)
def test_the_content_of_a_frame_has_the_size_that_is_stated(size: int) -> None:
    data = engine(size, size)
    frames = [zstd.compress(data, 3)]
    if zstd.SMALLEST_AS_IS <= size <= zstd.LARGEST_AS_IS:
        frames.append(zstd.as_is(data))
    for frame in frames:
        assert zstd.decompress(frame, size) == data  # any reader of zstd reads it
        assert zstd.content(memoryview(frame), size) == data
        for wrong in (size - 1, size + 1):
            with pytest.raises(ValueError, match="bytes"):
                zstd.content(memoryview(frame), wrong)


def test_no_more_is_decompressed_than_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zstd.compress(bytes(1 << 28), 3)
    assert len(bomb) < 1 << 15
    asked: list[int] = []
    module = zstd._zstd()

    class Decompressor:
        def __init__(self) -> None:
            self._real = module.ZstdDecompressor()

        def decompress(self, data: bytes, limit: int) -> bytes:
            asked.append(limit)
            return self._real.decompress(data, limit)  # type: ignore[no-any-return]

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    watched = SimpleNamespace(ZstdDecompressor=Decompressor, ZstdError=module.ZstdError)
    monkeypatch.setattr(zstd, "_zstd", lambda: watched)
    with pytest.raises(ValueError, match="at most"):
        zstd.content(memoryview(bomb), 5000)
    assert asked == [5001]


def listed(**changes: object) -> ChunkList:
    values: dict[str, object] = {
        "whole": {"sha256": "0" * 64, "size": 30},
        "packs": [{"sha256": "1" * 64, "size": 50}],
        "chunks": [["2" * 64, 10, 0, 0, 25], ["3" * 64, 10, 0, 25, 25]],
        "order": [0, 1, 0],
    }
    return ChunkList.model_validate_json(json.dumps({**values, **changes}))


def test_a_list_survives_being_stored() -> None:
    assert unpacked(packed(listed())) == listed()


@pytest.mark.parametrize(
    "changes",
    [
        {"order": [0, 1]},
        {"order": [0, 1, 2]},
        {"order": [0, 1, -1]},
        {"chunks": [["2" * 64, 10, 0, 0, 25], ["3" * 64, 10, 1, 25, 25]]},
        {"chunks": [["2" * 64, 10, 0, 0, 25], ["3" * 64, 10, 0, 26, 25]]},
        {"chunks": [["2" * 64, 10, 0, 0, 25], ["3" * 64, 10, 0, -1, 25]]},
        {"chunks": [["2" * 64, 10, 0, 0, 25], ["3" * 63, 10, 0, 25, 25]]},
        {"chunks": [["2" * 64, 10, 0, 0, 0], ["3" * 64, 10, 0, 25, 25]]},
        {"chunks": [["2" * 64, LARGEST_CHUNK + 1, 0, 0, 25], ["3" * 64, 10, 0, 25, 25]]},
        {"schema_version": 99},
    ],
    ids=str,
)
def test_a_list_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        listed(**changes)


def test_chunks_that_are_near_are_fetched_together() -> None:
    offsets = [0, 25, 25 + GAP, 3 * GAP, 0]
    chunks = ChunkList(
        whole=Blob(sha256="0" * 64, size=100),
        packs=tuple(Blob(sha256=str(n) * 64, size=4 * GAP) for n in (1, 2)),
        chunks=tuple(
            Chunk(str(n) * 64, 20, int(n == 4), offset, 25) for n, offset in enumerate(offsets)
        ),
        order=tuple(range(5)),
    )
    made = [(span.pack, span.offset, span.length) for span in spans(chunks.chunks, range(5))]
    assert made == [(0, 0, 50 + GAP), (0, 3 * GAP, 25), (1, 0, 25)]
    assert [span.chunks for span in spans(chunks.chunks, [3, 0])] == [[0], [3]]
    assert cost(chunks, {}) == 100 + GAP
    assert cost(chunks, {str(n) * 64: Place(Path("file"), 0) for n in range(1, 5)}) == 25


def rows(*offsets: int, size: int = 1000) -> list[Chunk]:
    """Chunks of one pack."""
    return [Chunk(str(offset), size, 0, offset, size) for offset in offsets]


def test_more_is_fetched_where_that_saves_requests() -> None:
    large = PART // 4
    far = [0, large + 2 * GAP, 2 * large + 5 * GAP]
    chunks = rows(*far, size=large)
    every = range(len(chunks))
    assert len(spans(chunks, every)) == 3
    assert len(spans(chunks, every, 3)) == 3
    few = spans(chunks, every, 2)  # the two with the least between them
    assert [(span.offset, span.length) for span in few] == [
        (0, 2 * large + 2 * GAP),
        (far[2], large),
    ]
    assert sum(span.length for span in few) <= (1 + SPARE) * 3 * large
    assert len(spans(chunks, every, 1)) == 2  # to join the third would cost too much
    assert len(spans(chunks, [0, 2], 1)) == 2
    small = rows(0, 2 * GAP, 5 * GAP)  # an update: what lies between is more than all that is new
    assert len(spans(small, range(3), 1)) == 3


def test_ranges_are_no_longer_than_the_parts_of_a_download() -> None:
    chunks = rows(*range(0, 3 * PART, 1 << 16), size=1 << 16)
    made = spans(chunks, range(len(chunks)), enough_requests(3 * PART))
    assert len(made) == 3
    assert max(span.length for span in made) <= PART
    assert sorted(number for span in made for number in span.chunks) == list(range(len(chunks)))


def test_there_are_no_more_connections_than_are_worth_opening() -> None:
    def wanted(*lengths: int) -> list[Span]:
        return [Span(0, 0, length, []) for length in lengths]

    assert connections([]) == 1
    assert connections(wanted(1000, 1000, 1000)) == 1
    assert connections(wanted(1000, 1000, 1000, 1000)) == 2
    assert connections(wanted(PART, 1000)) == 2  # as many as for the whole
    assert connections(wanted(*[PART] * 100)) == WORKERS


def test_an_engine_shares_the_chunks_of_the_model(signed: Signed) -> None:
    in_chunks(signed).release("m", content := engine())
    first = current_list(signed)
    assert len(first.packs) == 1
    signed.release("m", rebuilt(content))
    second = current_list(signed)
    assert len(second.packs) == 2
    assert second.packs[0] == first.packs[0]
    assert second.packs[1].size < 0.15 * first.packs[0].size
    assert second.whole.sha256 == sha256_bytes(rebuilt(content))


def test_a_list_of_another_engine_is_refused(signed: Signed) -> None:
    in_chunks(signed).release("m", engine())
    chunks = current_list(signed)
    other = Blob(sha256="4" * 64, size=chunks.whole.size)
    with raises_golden(RepositoryError, "repository/chunks-of-another-blob", match="4" * 64):
        signed.repository.chunks.parse(packed(chunks), other)
    with pytest.raises(RepositoryError, match="invalid"):
        signed.repository.chunks.parse(b"no list", other)


def test_a_range_is_read(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put("key", b"0123456789")
    assert store.read_range("key", 2, 3) == b"234"
    assert store.read_range("key", 8, 3) == b"89"
    with pytest.raises(KeyError):
        store.read_range("other", 0, 1)


def test_places_follow_the_order() -> None:
    places = places_in(listed(), Path("engine"))
    assert places["3" * 64] == Place(Path("engine"), 10)
    assert places["2" * 64] in (Place(Path("engine"), 0), Place(Path("engine"), 20))
