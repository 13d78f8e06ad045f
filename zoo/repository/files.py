"""Reads and writes the JSON records of a repository."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from zoo.schema.later import read_any
from zoo.schema.records import Record
from zoo.stores.base import ObjectStore
from zoo.util.errors import RepositoryError

R = TypeVar("R", bound=Record)
L = TypeVar("L", bound=Record)

LARGEST_RECORD = 2**24
"""Maximum record size in bytes: anyone who can write to a store could leave an endless object."""


class RecordFiles:
    """Records as JSON objects in a store.

    Args:
        store: The repository's store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self, key: str, kind: type[R]) -> R | None:
        """Returns the record at a key, None if there is none.

        Raises:
            RepositoryError: The object is not a valid record of this kind.
        """
        return self.parse(key, self.get(key), kind)

    def get(self, key: str) -> bytes | None:
        """Returns the bytes of a record, None if there is none."""
        try:
            return self._store.get(key, limit=LARGEST_RECORD)
        except KeyError:
            return None

    def parse(self, key: str, data: bytes | None, kind: type[R]) -> R | None:
        """Parses the bytes of a record; None stays None.

        Raises:
            RepositoryError: They are not a valid record of this kind.
        """
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise self._invalid(key, kind, error) from error

    def parse_any(
        self, key: str, data: bytes | None, kind: type[R], later: type[L]
    ) -> R | L | None:
        """Parses the bytes of a record that a later version may have written; None stays None.

        Raises:
            RepositoryError: They are not a valid record of this kind, even of a later version.
        """
        if data is None:
            return None
        try:
            return read_any(data, kind, later)
        except ValidationError as error:
            raise self._invalid(key, kind, error) from error

    def _invalid(self, key: str, kind: type[Record], error: ValidationError) -> RepositoryError:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        return RepositoryError(
            f"{self._store.url}: {key} is not a valid {kind.__name__}: {where}: {first['msg']}",
            hint="the file is damaged, or was written by another version of caft-zoo",
        )
