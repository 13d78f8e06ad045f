"""JSON records of a store, read and validated."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from zoo.schema.records import Record
from zoo.stores import ObjectStore
from zoo.util.errors import RepositoryError

R = TypeVar("R", bound=Record)

LARGEST_RECORD = 2**24
"""Bytes that a record may have: whoever can write to a store could leave one without an end."""


class RecordFiles:
    """Reads records by their keys.

    Args:
        store: Where they are stored.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key, limit=LARGEST_RECORD)
        except KeyError:
            return None

    def read(self, key: str, kind: type[R]) -> R | None:
        """Returns the record at a key, None when there is none.

        Raises:
            RepositoryError: What is stored there is no such record.
        """
        return self._parse(key, self._get(key), kind)

    def _parse(self, key: str, data: bytes | None, kind: type[R]) -> R | None:
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise RepositoryError(
                f"{self.store.url}: {key} is not a valid {kind.__name__}: {where}: {first['msg']}",
                hint="it is damaged, or was made by another version",
            ) from error
