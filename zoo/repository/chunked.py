"""Blobs made of chunks: reads lists of chunks, and fetches only the chunks that are lacking."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from zoo.repository.assembly import Place, Places, Target, read_at, reserve
from zoo.repository.pieces import PieceFiles
from zoo.repository.ranges import Span, connections, enough_requests, spans
from zoo.repository.unpacking import DamagedChunkError, unpacking
from zoo.schema.chunks import LARGEST_LIST, Chunk, ChunkList, Pieces
from zoo.schema.layout import blob_key
from zoo.schema.records import Blob
from zoo.stores.base import ObjectStore, Progress
from zoo.stores.transfer import in_order
from zoo.util.digest import sha256_bytes
from zoo.util.errors import MissingPackageError, NoRangesError, RepositoryError
from zoo.util.zstd import INSTALL, compress, decompress, is_installed

_LEVEL = 3

_HINT = (
    "nothing was loaded; tell the repository's maintainer; until then, --whole of zoo pull "
    "downloads the engine in one piece"
)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a download cost.

    Attributes:
        fetched: Bytes that came from the repository.
        reused: Bytes of the file that were on this machine.
    """

    fetched: int
    reused: int = 0


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
        sha256, size, _, _, _ = chunks.chunks[number]
        places[sha256] = Place(path, at)
        at += size
    return places


def cost(chunks: ChunkList, places: Places) -> int:
    """Returns how many bytes of packs a download will fetch."""
    lacking = [number for number, chunk in enumerate(chunks.chunks) if chunk[0] not in places]
    return sum(span.length for span in _wanted(chunks, lacking))


def _wanted(chunks: ChunkList, lacking: Collection[int]) -> list[Span]:
    return spans(chunks.chunks, lacking, enough_requests(chunks.whole.size))


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
        with partial.open("r+b" if resumed else "w+b", buffering=0) as file:
            reserve(file, chunks.whole.size)
            target = Target(file, chunks, progress)
            target.reuse(places, resumed=resumed)
            try:
                fetched = self._fill(target, whole_packs)
            except DamagedChunkError as error:
                raise _damaged(self._store.url, chunks, error.chunk, error.what) from error
            digest = target.digest()
        if digest != chunks.whole.sha256:
            raise _wrong(self._store.url, chunks, partial)
        partial.replace(path)
        return Transfer(fetched=fetched, reused=target.reused)

    def _fill(self, target: Target, whole_packs: Path | None) -> int:
        """Fetches what a target lacks; returns the bytes that came."""
        try:
            return self._fill_from_ranges(target)
        except NoRangesError:
            if whole_packs is None:
                raise
            return self._fill_from_packs(target, whole_packs)

    def _fill_from_ranges(self, target: Target) -> int:
        """Fetches the ranges that a target needs, several at a time; returns the bytes."""
        chunks = target.chunks

        def read(span: Span) -> int:
            key = blob_key(chunks.packs[span.pack].sha256)
            with unpacking(target, span) as taking:
                self._store.stream_range(key, span.offset, span.length, taking.take)
            return taking.taken

        wanted = _wanted(chunks, target.lacking)
        with closing(in_order(read, wanted, connections(wanted))) as fetched:
            return sum(fetched)

    def _fill_from_packs(self, target: Target, folder: Path) -> int:
        """Downloads each pack that a target needs, one after the other; returns the bytes."""
        chunks = target.chunks
        needed = spans(chunks.chunks, target.lacking)
        with TemporaryDirectory(dir=folder, prefix="pack-") as name:
            for number in sorted({span.pack for span in needed}):
                pack = chunks.packs[number]
                path = Path(name) / pack.sha256
                self._store.fetch(blob_key(pack.sha256), path, size=pack.size)
                with path.open("rb") as file:
                    for span in (span for span in needed if span.pack == number):
                        with unpacking(target, span) as taking:
                            taking.take(read_at(file, span.offset, span.length))
                path.unlink()
        return sum(chunks.packs[number].size for number in {span.pack for span in needed})


def _wrong(url: str, chunks: ChunkList, partial: Path) -> RepositoryError:
    """Returns the error for chunks that make up another file: a chunk's, or the list's.

    Only now is each chunk hashed, to name the pack that is damaged; what is right can be used
    by the next attempt.
    """
    with partial.open("rb") as file:
        for number in chunks.order:
            chunk = Chunk(*chunks.chunks[number])
            if sha256_bytes(file.read(chunk.size)) != chunk.sha256:
                return _damaged(url, chunks, chunk, "its SHA-256 does not match")
    partial.unlink()
    return RepositoryError(
        f"{url}: the chunks of blob {chunks.whole.sha256} make up another file",
        hint=_HINT,
    )


def _damaged(url: str, chunks: ChunkList, chunk: Chunk, what: str) -> RepositoryError:
    """Returns the error for a chunk that is not what the list states."""
    pack = chunks.packs[chunk.pack].sha256
    return RepositoryError(
        f"{url}: blob {pack}, a pack of chunks, is damaged: chunk {chunk.sha256}: {what}",
        hint=_HINT,
    )
