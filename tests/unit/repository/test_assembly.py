"""Files that are put together from chunks: what is refused, named, kept, and written in one go."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.chunked_engines import engine

from zoo.repository import assembly
from zoo.repository.chunked import ChunkedBlobs, places_in
from zoo.schema.chunks import Chunk, ChunkList
from zoo.schema.layout import blob_key
from zoo.schema.records import Blob
from zoo.stores import MemoryStore
from zoo.stores.base import Take
from zoo.util import zstd
from zoo.util.digest import sha256_bytes
from zoo.util.errors import NoRangesError, RepositoryError

PARTS = [engine(seed, 5000 + seed) for seed in range(6)]
WHOLE = b"".join(PARTS)


@dataclass
class Packed:
    """A blob in one pack, whose frames may be changed before it is stored.

    The list states their lengths unless others are given.
    """

    folder: Path
    frames: list[bytes] = field(default_factory=lambda: [zstd.as_is(part) for part in PARTS])
    order: tuple[int, ...] = tuple(range(len(PARTS)))
    whole: bytes = WHOLE
    stated: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = MemoryStore()

    @property
    def chunks(self) -> ChunkList:
        """The list; it states what is in ``PARTS`` whatever the frames have."""
        pack, rows, at = b"".join(self.frames), [], 0
        for number, (part, frame) in enumerate(zip(PARTS, self.frames, strict=True)):
            stored = self.stated.get(number, len(frame))
            rows.append(Chunk(sha256_bytes(part), len(part), 0, at, stored))
            at += len(frame)
        blob = Blob(sha256=sha256_bytes(pack), size=len(pack))
        self.store.put(blob_key(blob.sha256), pack)
        whole = Blob(sha256=sha256_bytes(self.whole), size=len(self.whole))
        return ChunkList(whole=whole, packs=(blob,), chunks=tuple(rows), order=self.order)

    @property
    def partial(self) -> Path:
        """What is left of a download."""
        return self.folder / "engine.part"

    def fetch(self, **options: object) -> bytes:
        """Puts the blob together."""
        path = self.folder / "engine"
        given = {"places": {}, "partial": self.partial, **options}
        ChunkedBlobs(self.store).fetch(self.chunks, path, **given)  # type: ignore[arg-type]
        return path.read_bytes()


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return Packed(tmp_path)


def test_chunks_that_are_compressed_and_chunks_that_are_not(packed: Packed) -> None:
    packed.frames[::2] = [zstd.compress(part, 3) for part in PARTS[::2]]
    assert packed.fetch() == WHOLE


@pytest.mark.parametrize("number", [0, 3, 5])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_chunk_in_a_range_is_named(packed: Packed, number: int, ranges: bool) -> None:
    packed.frames[number] = zstd.as_is(bytes(len(PARTS[number])))
    if not ranges:

        def read_range(key: str, first: int, length: int) -> bytes:
            raise NoRangesError(key)

        packed.store.read_range = read_range  # type: ignore[method-assign]
    pack = packed.chunks.packs[0].sha256
    with pytest.raises(RepositoryError, match="SHA-256 does not match") as raised:
        packed.fetch(whole_packs=packed.folder)
    assert pack in raised.value.message
    assert sha256_bytes(PARTS[number]) in raised.value.message
    assert not (packed.folder / "engine").exists()
    # What is right is used once the pack is mended.
    reads: list[int] = []
    mended = Packed(packed.folder)
    original = mended.store.read_range
    mended.store.read_range = lambda key, at, n: reads.append(n) or original(key, at, n)  # type: ignore
    assert mended.fetch() == WHOLE
    assert reads == [len(PARTS[number]) + 10]


@pytest.mark.parametrize(
    "frame",
    [
        zstd.as_is(PARTS[2] + b"more"),
        zstd.as_is(PARTS[2][:-1]),
        zstd.compress(PARTS[2] + b"more", 3),
        zstd.compress(PARTS[2][:-1], 3),
        zstd.compress(bytes(1 << 26), 3),
        b"no frame" * 600,
        zstd.as_is(PARTS[2])[:-1],
    ],
    ids=["longer", "shorter", "longer zstd", "shorter zstd", "bomb", "no frame", "cut off"],
)
def test_a_list_that_lies_about_a_size_is_refused(packed: Packed, frame: bytes) -> None:
    packed.frames[2] = frame
    with pytest.raises(RepositoryError, match=sha256_bytes(PARTS[2])):
        packed.fetch()
    assert packed.partial.stat().st_size == len(WHOLE)
    assert not (packed.folder / "engine").exists()


def test_right_chunks_of_another_file_are_refused(packed: Packed) -> None:
    packed.whole = WHOLE[::-1]
    with pytest.raises(RepositoryError, match="make up another file"):
        packed.fetch()
    assert not packed.partial.exists()


def test_a_chunk_may_stand_in_several_places(packed: Packed) -> None:
    packed.order = (0, 1, 0, 0, 2, 3, 1, 4, 5, 0)
    packed.whole = b"".join(PARTS[number] for number in packed.order)
    done: list[int] = []
    assert packed.fetch(progress=done.append) == packed.whole
    assert sum(done) == len(packed.whole)


def test_a_download_that_was_interrupted_is_resumed(packed: Packed) -> None:
    packed.partial.write_bytes(WHOLE[:20_000] + bytes(len(WHOLE) - 20_000))
    reads: list[int] = []
    original = packed.store.read_range
    packed.store.read_range = lambda key, at, n: reads.append(n) or original(key, at, n)  # type: ignore
    done: list[int] = []
    assert packed.fetch(progress=done.append) == WHOLE
    assert sum(reads) == sum(len(part) + 10 for part in PARTS[3:])
    assert sum(done) == len(WHOLE)


@pytest.mark.parametrize("size", [1, 9, 4000, 5011, 12_000])
@pytest.mark.parametrize("compressed", [True, False])
def test_chunks_begin_and_end_anywhere_in_what_arrives(
    packed: Packed, size: int, compressed: bool
) -> None:
    if compressed:
        packed.frames[1:4] = [zstd.compress(part, 3) for part in PARTS[1:4]]
    packed.frames[3] += bytes(3000)  # of other engines
    packed.stated = {3: len(packed.frames[3]) - 3000}
    packed.order = (0, 1, 2, 1, 3, 5, 4)
    packed.whole = b"".join(PARTS[number] for number in packed.order)
    in_pieces(packed.store, size)
    done: list[int] = []
    assert packed.fetch(progress=done.append) == packed.whole
    assert sum(done) == len(packed.whole)


def in_pieces(store: MemoryStore, size: int) -> None:
    """Makes a store pass ranges on in pieces."""

    def stream_range(key: str, first: int, length: int, take: Take) -> None:
        data = store.read_range(key, first, length)
        for at in range(0, length, size):
            take(data[at : at + size])

    store.stream_range = stream_range  # type: ignore[method-assign]


@pytest.mark.parametrize("damaged", [True, False])
def test_ranges_that_cease_to_come_are_read_from_whole_packs(
    packed: Packed, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    monkeypatch.setattr("zoo.repository.ranges.PART", 1)  # each chunk is a range
    original, reads = packed.store.stream_range, list[int]()

    def stream_range(key: str, first: int, length: int, take: Take) -> None:
        reads.append(first)
        if len(reads) > 2:
            raise NoRangesError(key)
        wrong = zstd.as_is(bytes(length - 10))  # what comes the second time is right
        original(key, first, length, lambda data: take(wrong if damaged else data))

    packed.store.stream_range = stream_range  # type: ignore[method-assign]
    assert packed.fetch(whole_packs=packed.folder) == WHOLE
    assert len(reads) > 2


def test_what_came_before_an_error_is_kept(packed: Packed) -> None:
    in_pieces(packed.store, 6000)
    original, reads = packed.store.stream_range, list[int]()

    def stream_range(key: str, first: int, length: int, take: Take) -> None:
        original(key, first, 16_000, take)
        raise RepositoryError("the cable was pulled")

    packed.store.stream_range = stream_range  # type: ignore[method-assign]
    with pytest.raises(RepositoryError, match="cable"):
        packed.fetch()
    packed.store.stream_range = lambda key, at, n, take: (
        reads.append(n)
        or original(  # type: ignore
            key, at, n, take
        )
    )
    assert packed.fetch() == WHOLE
    assert reads == [sum(len(part) + 10 for part in PARTS[3:])]


def test_seeds_are_checked_before_they_are_used(packed: Packed) -> None:
    seed = packed.folder / "seed"
    seed.write_bytes(WHOLE[:5000] + bytes(len(WHOLE) - 5000))
    assert packed.fetch(places=places_in(packed.chunks, seed)) == WHOLE


def test_a_disk_that_takes_little_at_once_gets_everything(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev

    def writev(descriptor: int, pieces: Sequence[bytes | memoryview]) -> int:
        return real(descriptor, [b"".join(pieces)[:7001]])

    monkeypatch.setattr(os, "writev", writev)
    assert packed.fetch() == WHOLE


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_reserves_no_space_will_do(
    packed: Packed, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*arguments: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert packed.fetch() == WHOLE
    monkeypatch.delattr(os, "posix_fallocate")
    assert packed.fetch() == WHOLE


def test_a_disk_without_the_space_is_an_error_before_the_download(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read_range(*arguments: object) -> bytes:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    packed.store.read_range = read_range  # type: ignore[method-assign]
    with pytest.raises(OSError, match="space"):
        packed.fetch()
    assert not (packed.folder / "engine").exists()


def test_little_waits_to_be_written(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "_TOGETHER", 6000)
    monkeypatch.setattr(assembly, "_PIECES", 1)
    written: list[int] = []
    assert packed.fetch(progress=written.append) == WHOLE
    assert sum(written) == len(WHOLE)
    assert max(written) < 6000 + 2 * max(map(len, PARTS))
    assert len(written) > 1
