"""Reads the build records that an index lists, and checks them against it."""

from __future__ import annotations

from zoo.repository.files import RecordFiles
from zoo.schema.index import EngineEntry
from zoo.schema.later import AnyBuild, LaterBuildRecord
from zoo.schema.layout import record_key
from zoo.schema.records import BuildRecord
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError


class ListedRecords:
    """The build records that an index lists.

    Args:
        store: The repository's store.
        files: Parses records.
    """

    def __init__(self, store: ObjectStore, files: RecordFiles) -> None:
        self._store, self._files = store, files

    def read(self, model: str, entry: EngineEntry) -> bytes:
        """Returns the unchecked bytes of the record of an engine in the index.

        Raises:
            RepositoryError: It is missing, or longer than the index says.
        """
        key = record_key(model, entry.record)
        try:
            return self._store.get(key, limit=entry.record_file.size)
        except KeyError as error:
            raise RepositoryError(
                f"{self._store.url}: {key} is missing, although the index names it",
                hint="if this is a mirror, it may have been made without this record: try the "
                "original repository; otherwise tell the repository's maintainer",
            ) from error

    def parse(self, model: str, entry: EngineEntry, data: bytes) -> BuildRecord:
        """Parses the bytes of the record of an engine in the index.

        Raises:
            RepositoryError: They do not match the index.
        """
        key, record = record_key(model, entry.record), None
        if _is_listed(entry, data):
            record = self._files.parse(key, data, BuildRecord)
        self._check(model, entry, record)
        assert record is not None
        return record

    def parse_any(self, model: str, entry: EngineEntry, data: bytes) -> AnyBuild:
        """Parses the bytes of a record in the index that a later version may have written.

        Raises:
            RepositoryError: They do not match the index.
        """
        key, record = record_key(model, entry.record), None
        if _is_listed(entry, data):
            record = self._files.parse_any(key, data, BuildRecord, LaterBuildRecord)
        self._check(model, entry, record)
        assert record is not None
        return record

    def _check(self, model: str, entry: EngineEntry, record: AnyBuild | None) -> None:
        if record is None or record.key != entry.record or record.engine != entry.engine:
            raise RepositoryError(
                f"{self._store.url}: {record_key(model, entry.record)} was modified: it does not "
                "match the index",
                hint="nothing was loaded; tell the repository's maintainer",
            )


def _is_listed(entry: EngineEntry, data: bytes) -> bool:
    """Whether the bytes of a record are those that the index names."""
    return sha256_bytes(data) == entry.record_file.sha256
