"""What blobs that are not stored whole are assembled from: one small object for each."""

from __future__ import annotations

from zoo.repository.files import RecordFiles
from zoo.schema.chunks import Pieces
from zoo.schema.layout import pieces_key
from zoo.stores.base import ObjectStore
from zoo.util.errors import RepositoryError


class PieceFiles:
    """The pieces of a repository's blobs.

    Args:
        store: The repository's store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._files = RecordFiles(store)

    def read(self, sha256: str) -> Pieces | None:
        """Returns what a blob is assembled from; None if nothing is known.

        Raises:
            RepositoryError: It can't be parsed, or is about another blob.
        """
        pieces = self._files.read(key := pieces_key(sha256), Pieces)
        if pieces is not None and pieces.whole.sha256 != sha256:
            raise RepositoryError(
                f"{self._store.url}: {key} is about blob {pieces.whole.sha256}",
                hint="zoo-farm check --repair removes it",
            )
        return pieces

    def add(self, pieces: Pieces) -> None:
        """Writes what a blob is assembled from; its list and packs must be stored."""
        data, key = pieces.to_json(), pieces_key(pieces.whole.sha256)
        if self._files.get(key) != data:
            self._store.put(key, data)
