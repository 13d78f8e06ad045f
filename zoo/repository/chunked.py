"""Blobs made of chunks: reads lists of chunks, and fetches only the chunks that are lacking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from pydantic import ValidationError

from zoo.repository.pieces import PieceFiles
from zoo.schema.chunks import LARGEST_LIST, Chunk, ChunkList, Pieces
from zoo.schema.layout import blob_key
from zoo.schema.records import Blob
from zoo.stores.base import ObjectStore, Progress
from zoo.stores.transfer import PART, in_order
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import MissingPackageError, NoRangesError, RepositoryError
from zoo.util.zstd import INSTALL, compress, decompress, is_installed

GAP = 128 << 10
"""Bytes between two chunks up to which one request for both is cheaper than two."""

_LEVEL = 3

_HINT = (
    "nothing was loaded; tell the repository's maintainer; until then, --whole of zoo pull "
    "downloads the engine in one piece"
)


@dataclass(frozen=True)
class Place:
    """Where a chunk is on this machine.

    Attributes:
        path: A file.
        offset: Where it begins there.
    """

    path: Path
    offset: int


Places = Mapping[str, Place]
"""Chunks on this machine, by digest."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a download cost.

    Attributes:
        fetched: Bytes that came from the repository.
        reused: Bytes of the file that were on this machine.
    """

    fetched: int
    reused: int = 0


@dataclass
class Span:
    """A range of a pack.

    Attributes:
        pack: Position of the pack in the list.
        offset: Where the range begins.
        length: Its length.
        chunks: Positions of the chunks in it that are lacking.
    """

    pack: int
    offset: int
    length: int
    chunks: list[int]


def packed(chunks: ChunkList) -> bytes:
    """Returns a list of chunks as it is stored."""
    return compress(chunks.model_dump_json().encode(), _LEVEL)


def unpacked(data: bytes) -> ChunkList:
    """Parses a list of chunks.

    Raises:
        ValueError: It is not one.
    """
    try:
        return ChunkList.model_validate_json(decompress(data, LARGEST_LIST))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def places_in(chunks: ChunkList, path: Path) -> dict[str, Place]:
    """Returns where the chunks of a blob are in a file that holds the blob."""
    places, at = {}, 0
    for number in chunks.order:
        chunk = chunks.chunks[number]
        places[chunk.sha256] = Place(path, at)
        at += chunk.size
    return places


def cost(chunks: ChunkList, places: Places) -> int:
    """Returns how many bytes of packs a download will fetch."""
    lacking = {number for number, chunk in enumerate(chunks.chunks) if chunk.sha256 not in places}
    return sum(span.length for span in spans(chunks, lacking))


def spans(chunks: ChunkList, lacking: Collection[int]) -> list[Span]:
    """Returns the ranges of packs that hold chunks, in few requests.

    Args:
        chunks: The list.
        lacking: Positions of the chunks in it.
    """
    made: list[Span] = []
    for number in sorted(lacking, key=lambda number: chunks.chunks[number][2:4]):
        chunk, last = chunks.chunks[number], made[-1] if made else None
        if last and last.pack == chunk.pack and _is_near(last, chunk):
            last.length = max(last.length, chunk.offset + chunk.stored - last.offset)
            last.chunks.append(number)
        else:
            made.append(Span(chunk.pack, chunk.offset, chunk.stored, [number]))
    return made


def _is_near(span: Span, chunk: Chunk) -> bool:
    end = span.offset + span.length
    return chunk.offset - end <= GAP and chunk.offset + chunk.stored - span.offset <= PART


class ChunkedBlobs:
    """The blobs of a repository that are stored as chunks, besides the whole or in its place.

    Attributes:
        pieces: What blobs are assembled from that are not stored whole.

    Args:
        store: The repository's store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.pieces = PieceFiles(store)

    def assemble(
        self, pieces: Pieces, path: Path, *, partial: Path, progress: Progress | None = None
    ) -> None:
        """Makes a blob from its chunks, and checks its hash.

        Args:
            pieces: What it is made from.
            path: The file to make.
            partial: As for :meth:`fetch`; it may also be the beginning of the blob.
            progress: Called with the bytes of the blob that were written.

        Raises:
            KeyError: The list or a pack is missing.
            MissingPackageError: zstd is not installed.
            RepositoryError: Something is damaged.
        """
        self.must_read()
        chunks = self.list_of(pieces.whole, pieces.listed)
        self.fetch(
            chunks, path, partial=partial, places={}, progress=progress, whole_packs=path.parent
        )

    def must_read(self) -> None:
        """Checks that chunks can be read here.

        Raises:
            MissingPackageError: zstd is not installed.
        """
        if not is_installed():
            raise MissingPackageError(
                f"{self._store.url} stores engines as chunks only, for which zstd is not installed",
                hint=INSTALL,
            )

    def read(self, listed: Blob) -> bytes:
        """Returns the bytes of a list, whose digest was checked.

        Raises:
            KeyError: It is missing.
            RepositoryError: It is damaged.
        """
        data = self._store.get(blob_key(listed.sha256), limit=listed.size)
        if sha256_bytes(data) != listed.sha256:
            raise RepositoryError(
                f"{self._store.url}: blob {listed.sha256}, a list of chunks, is damaged: its "
                "SHA-256 does not match",
                hint=_HINT,
            )
        return data

    def list_of(self, whole: Blob, listed: Blob) -> ChunkList:
        """Returns the chunks of a blob.

        Args:
            whole: The blob.
            listed: Its list.

        Raises:
            KeyError: The list is missing.
            RepositoryError: It is damaged, invalid or about another blob.
        """
        return self.parse(self.read(listed), whole)

    def blobs_of(self, whole: Blob, listed: Blob) -> tuple[Blob, ...]:
        """Returns a list of chunks and the packs that it needs.

        Raises:
            KeyError: The list is missing.
            RepositoryError: It is damaged, invalid or about another blob.
        """
        return listed, *self.list_of(whole, listed).packs

    def parse(self, data: bytes, whole: Blob) -> ChunkList:
        """Parses the list of a blob.

        Raises:
            RepositoryError: It is invalid or about another blob.
        """
        try:
            chunks = unpacked(data)
            if (chunks.whole.sha256, chunks.whole.size) != (whole.sha256, whole.size):
                raise ValueError(f"it is about blob {chunks.whole.sha256}")
        except ValueError as error:
            raise RepositoryError(
                f"{self._store.url}: the list of chunks of blob {whole.sha256} is invalid: {error}",
                hint=_HINT,
            ) from error
        return chunks

    def fetch(
        self,
        chunks: ChunkList,
        path: Path,
        *,
        partial: Path,
        places: Places,
        progress: Progress | None = None,
        whole_packs: Path | None = None,
    ) -> Transfer:
        """Assembles a blob, fetching the chunks that are lacking, and checks its hash.

        What ``partial`` has of the blob from an earlier attempt is used; it is renamed to ``path``
        only if the hash of the whole matches.

        Args:
            chunks: The blob's chunks.
            path: The file to make.
            partial: A file of the same folder, which nobody else writes.
            places: Chunks on this machine.
            progress: Called with the bytes of the blob that were written.
            whole_packs: Folder for packs in case that the server has no ranges; each is deleted
                once it was read. Without it, that is an error.

        Raises:
            KeyError: A pack is missing.
            NoRangesError: The server sends whole packs only.
            RepositoryError: A chunk is damaged, or the chunks do not make up the blob.
        """
        resumed = partial.exists()
        with partial.open("r+b" if resumed else "w+b") as file:
            file.truncate(chunks.whole.size)
            target = _Target(file, chunks, progress)
            target.reuse(places, resumed=resumed)
            try:
                fetched = self._fill(target)
            except NoRangesError:
                if whole_packs is None:
                    raise
                fetched = self._fill_from_packs(target, whole_packs)
        if sha256_file(partial) != chunks.whole.sha256:
            partial.unlink()
            raise RepositoryError(
                f"{self._store.url}: the chunks of blob {chunks.whole.sha256} make up another file",
                hint=_HINT,
            )
        partial.replace(path)
        return Transfer(fetched=fetched, reused=target.reused)

    def _fill(self, target: _Target) -> int:
        """Fetches what a target lacks; returns the bytes that came."""
        chunks = target.chunks

        def read(span: Span) -> tuple[Span, bytes]:
            key = blob_key(chunks.packs[span.pack].sha256)
            return span, self._store.read_range(key, span.offset, span.length)

        fetched, answers = 0, in_order(read, spans(chunks, target.lacking))
        try:
            for span, data in answers:
                fetched += len(data)
                for number in span.chunks:
                    start = chunks.chunks[number].offset - span.offset
                    self._unpack(target, number, data[start : start + chunks.chunks[number].stored])
        finally:
            answers.close()
        return fetched

    def _fill_from_packs(self, target: _Target, folder: Path) -> int:
        """Downloads each pack that a target needs, one after the other; returns the bytes."""
        chunks = target.chunks
        needed = spans(chunks, target.lacking)
        with TemporaryDirectory(dir=folder, prefix="pack-") as name:
            for number in sorted({span.pack for span in needed}):
                pack = chunks.packs[number]
                path = Path(name) / pack.sha256
                self._store.fetch(blob_key(pack.sha256), path, size=pack.size)
                with path.open("rb") as file:
                    for chunk in (n for span in needed if span.pack == number for n in span.chunks):
                        place = chunks.chunks[chunk]
                        self._unpack(target, chunk, _read(file, place.offset, place.stored))
                path.unlink()
        return sum(chunks.packs[number].size for number in {span.pack for span in needed})

    def _unpack(self, target: _Target, number: int, data: bytes) -> None:
        chunk = target.chunks.chunks[number]
        try:
            target.write(number, decompress(data, chunk.size))
        except ValueError as error:
            pack = target.chunks.packs[chunk.pack].sha256
            raise RepositoryError(
                f"{self._store.url}: blob {pack}, a pack of chunks, is damaged: chunk "
                f"{chunk.sha256}: {error}",
                hint=_HINT,
            ) from error


class _Target:
    """A blob that is being made.

    Args:
        file: The file to write.
        chunks: Its chunks.
        progress: Called with the bytes that were written.
    """

    def __init__(self, file: BinaryIO, chunks: ChunkList, progress: Progress | None) -> None:
        self.chunks = chunks
        self.reused = 0
        self.lacking: defaultdict[int, list[int]] = defaultdict(list)
        self._file = file
        self._progress = progress or (lambda count: None)

    def reuse(self, places: Places, *, resumed: bool) -> None:
        """Takes over the chunks that are on this machine, after checking them.

        Args:
            places: Chunks in other files.
            resumed: Whether the file has chunks of an earlier attempt.
        """
        with ExitStack() as opened:
            files: dict[Path, BinaryIO | None] = {}
            at = 0
            for number in self.chunks.order:
                chunk = self.chunks.chunks[number]
                if resumed and _is(_read(self._file, at, chunk.size), chunk):
                    self._progress(chunk.size)
                elif data := _checked(places.get(chunk.sha256), chunk, files, opened):
                    self._put(at, data)
                    self.reused += chunk.size
                else:
                    self.lacking[number].append(at)
                at += chunk.size

    def write(self, number: int, data: bytes) -> None:
        """Writes a chunk that is lacking.

        Raises:
            ValueError: It does not match its digest; it was not written.
        """
        if not _is(data, self.chunks.chunks[number]):
            raise ValueError("its SHA-256 does not match")
        for at in self.lacking[number]:
            self._put(at, data)

    def _put(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        self._file.write(data)
        self._progress(len(data))


def _checked(
    place: Place | None, chunk: Chunk, files: dict[Path, BinaryIO | None], opened: ExitStack
) -> bytes | None:
    """Returns a chunk from another file; None if it is not there any more."""
    if place is None:
        return None
    if place.path not in files:
        try:
            files[place.path] = opened.enter_context(place.path.open("rb"))
        except OSError:
            files[place.path] = None
    file = files[place.path]
    data = _read(file, place.offset, chunk.size) if file else b""
    return data if _is(data, chunk) else None


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _is(data: bytes, chunk: Chunk) -> bool:
    return len(data) == chunk.size and sha256_bytes(data) == chunk.sha256
