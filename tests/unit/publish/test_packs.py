"""Packs: what is compressed, and what is stored again so that readers need few requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chunked_engines import current_list, engine, in_chunks, pull
from support.signed_repository import Signed

from builders.publish import packs
from builders.publish.packs import Pack, Stored, new_pack, scattered
from zoo.repository import ranges
from zoo.repository.ranges import spans
from zoo.schema.chunks import Chunking
from zoo.schema.records import Blob
from zoo.util import zstd

PACK = Blob(sha256="1" * 64, size=1 << 30)
OTHER = Blob(sha256="2" * 64, size=1 << 30)


def test_what_compresses_little_is_stored_as_it_is(tmp_path: Path) -> None:
    contents = [engine(0, 5000), bytes(5000), engine(1, 100)]
    with new_pack(tmp_path / "pack") as pack:
        places = [pack.chunks[pack.add(data)] for data in contents]
        assert pack.add(contents[0]) in pack.chunks
    written = (tmp_path / "pack").read_bytes()
    assert places[0].stored == 5000 + 10
    assert places[1].stored < 100
    assert len(written) == sum(place.stored for place in places)
    for place, data in zip(places, contents, strict=True):
        frame = written[place.offset : place.offset + place.stored]
        assert zstd.decompress(frame, place.size) == data


def test_a_known_chunk_stays_where_it_is_for_the_next_engine(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "pack")
    digest = pack.add(engine(0, 5000))
    first = pack.chunks[digest]
    again = pack.store(engine(0, 5000))
    assert again.offset == first.offset + first.stored
    assert pack.chunks[digest] == first
    pack.close()


def places(*stored: tuple[Blob | None, int, int]) -> dict[str, Stored]:
    """Chunks by pack, offset and size."""
    return {
        str(number): Stored(pack, offset, size, size)
        for number, (pack, offset, size) in enumerate(stored)
    }


def test_the_smallest_ranges_are_stored_again() -> None:
    far = 10 << 20
    made = places(
        (PACK, 0, 60_000),
        (PACK, far, 5000),
        (PACK, 2 * far, 40_000),
        (OTHER, 0, 6000),
        (None, 0, 50_000),
    )
    size = sum(place.size for place in made.values())
    assert scattered(made, 50_000, size) == ["1", "2", "3"]
    assert scattered(places((PACK, 0, 5000), (PACK, far, 5000)), 0, 10_000) == []
    assert scattered({}, 0, 0) == []


def test_one_request_less_is_worth_little(monkeypatch: pytest.MonkeyPatch) -> None:
    few = places((None, 0, 100_000), (PACK, 0, 4000))
    assert scattered(few, 100_000, 104_000) == ["1"]
    monkeypatch.setattr(packs, "_AGAIN", 0.01)
    assert scattered(few, 100_000, 104_000) == []


@pytest.mark.parametrize("chunking", [Chunking.ON, Chunking.ONLY])
def test_an_engine_of_many_pieces_needs_few_ranges(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, chunking: Chunking
) -> None:
    monkeypatch.setattr(ranges, "GAP", 1000)
    in_chunks(signed, chunking).release("m", weights := engine(0, 2_000_000))
    pieces = [weights[at : at + 100_000] for at in range(0, len(weights), 300_000)]
    signed.release("m", content := engine(1, 50_000).join(pieces))
    chunks = current_list(signed)
    assert len(chunks.packs) == 2
    rows = range(len(chunks.chunks))
    assert len(spans(chunks.chunks, rows)) <= ranges.enough_requests(len(content))
    assert pull(signed.client("new")).engine.read_bytes() == content


def test_what_has_few_different_bytes_is_compressed(tmp_path: Path) -> None:
    few = bytes(byte % 16 for byte in engine(0, 5000))
    with new_pack(tmp_path / "pack") as pack:
        place = pack.chunks[pack.add(few)]
    assert place.stored < 0.6 * len(few)
    assert zstd.content(memoryview((tmp_path / "pack").read_bytes()), len(few)) == few
