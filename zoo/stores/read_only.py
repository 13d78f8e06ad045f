"""The writing half of an object store that can only be read: it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from zoo.stores.base import Abandoned, Entry, Progress
from zoo.util.errors import RepositoryError


class ReadOnlyStore:
    """What a plain web server can't do."""

    @property
    def url(self) -> str:
        """Where the repository is served."""
        raise NotImplementedError

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Refuses."""
        self._refuse()

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Refuses."""
        self._refuse()

    def delete(self, key: str) -> None:
        """Refuses."""
        self._refuse()

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Refuses."""
        self._refuse()

    def check_writable(self) -> None:
        """Refuses."""
        self._refuse()

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Refuses."""
        self._refuse()

    def discard(self, left: Abandoned) -> None:
        """Refuses."""
        self._refuse()

    def list(self, prefix: str) -> Iterator[Entry]:
        """Refuses: plain HTTP has no listing."""
        raise RepositoryError(
            f"{self.url}: plain HTTP can't list what is stored there",
            hint="for what needs a list, use the repository's s3:// URL or its directory",
        )

    def _refuse(self) -> NoReturn:
        raise RepositoryError(
            f"{self.url}: plain HTTP is for reading",
            hint="write to the repository's s3:// URL or its directory",
        )
