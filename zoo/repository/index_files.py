"""The index, and the build records that it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from zoo.repository.record_files import RecordFiles
from zoo.schema.index import EngineEntry, Index, ModelIndex
from zoo.schema.layout import record_key
from zoo.schema.records import BuildRecord
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError


class IndexReader(Protocol):
    """Reads files of the index that somebody vouches for."""

    def read(self, path: str) -> bytes | None:
        """Returns ``index.json`` or ``index/<model>.json``, None when there is no such file."""
        ...


class IndexFiles(RecordFiles):
    """Reads the index.

    Args:
        store: Where it is stored.
        trusted: Reads the index as it is signed; without it, the index is what the store says,
            which is good enough to see what there is to do, and not to load an engine.
    """

    def __init__(self, store: ObjectStore, trusted: IndexReader | None = None) -> None:
        super().__init__(store)
        self._trusted = trusted

    def plain_index(self) -> Index | None:
        """Returns ``index.json`` as it lies there for eyes and curl; None when it is no index."""
        try:
            return self.read("index.json", Index)
        except RepositoryError:
            return None

    def index(self) -> Index | None:
        """Returns ``index.json``, None when nothing has been published."""
        return self._parse("index.json", self._index_bytes("index.json"), Index)

    def model_index(self, model: str) -> ModelIndex | None:
        """Returns ``index/<model>.json``, None when nothing of the model has been published."""
        key = f"index/{model}.json"
        return self._parse(key, self._index_bytes(key), ModelIndex)

    def model_indexes(self) -> Iterator[ModelIndex]:
        """Yields the index of every model that ``index.json`` names."""
        index = self.index()
        for row in index.models if index else ():
            if found := self.model_index(row.model):
                yield found

    def listed_record(self, model: str, entry: EngineEntry) -> BuildRecord:
        """Returns the record of an engine of the index, when it is what the index says.

        Raises:
            RepositoryError: It is missing or was changed.
        """
        return self.parse_listed(model, entry, self.listed_bytes(model, entry))

    def listed_bytes(self, model: str, entry: EngineEntry) -> bytes:
        """Returns the bytes of that record, unchecked.

        Raises:
            RepositoryError: It is missing, or longer than the index says.
        """
        key = record_key(model, entry.record)
        try:
            return self.store.get(key, limit=entry.record_file.size)
        except KeyError as error:
            raise RepositoryError(
                f"{self.store.url}: the index names {key}, which is gone",
                hint="tell the repository's maintainer; a mirror may have been made without it",
            ) from error

    def parse_listed(self, model: str, entry: EngineEntry, data: bytes) -> BuildRecord:
        """Reads the bytes of that record.

        Raises:
            RepositoryError: They are not what the index says.
        """
        key, record = record_key(model, entry.record), None
        if sha256_bytes(data) == entry.record_file.sha256:
            record = self._parse(key, data, BuildRecord)
        if record is None or record.key != entry.record or record.engine != entry.engine:
            raise RepositoryError(
                f"{self.store.url}: {key} is not what the index says: it was changed",
                hint="nothing was loaded; tell the repository's maintainer",
            )
        return record

    def _index_bytes(self, key: str) -> bytes | None:
        return self._trusted.read(key) if self._trusted else self._get(key)
