"""Client: finds the engine that fits, fetches it, checks it, opens it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.digest import sha256_file
from zoo.errors import RepositoryError, UsageError
from zoo.index import EngineEntry, Index, ModelIndex
from zoo.names import perhaps
from zoo.record import BuildRecord
from zoo.repository import Repository
from zoo.selection import Machine, select
from zoo.stores import open_store

if TYPE_CHECKING:
    from zoo.runtime import Session


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """An engine on this machine, checked.

    Attributes:
        record: Its build record.
        engine: The file.
    """

    record: BuildRecord
    engine: Path

    def open(self) -> Session:
        """Opens the engine."""
        from zoo.runtime import open_session

        return open_session(self.engine, self.record.inputs, self.record.engine.size)


class Client:
    """Reads a repository.

    Args:
        repository: Which one.
        cache: Folder that keeps engines.
    """

    def __init__(self, repository: Repository, cache: Path) -> None:
        self._repository = repository
        self._cache = cache

    def index(self) -> Index:
        """Returns the repository's index.

        Raises:
            RepositoryError: Nothing is published there.
        """
        index = self._repository.index()
        if index is None:
            raise RepositoryError(
                f"{self._repository.store.url}: no repository here, or nothing published in it",
                hint="name one with --store or ZOO_STORE, or make one: "
                "make zoo MODELS=efficientnet_lite0",
            )
        return index

    def model(self, name: str) -> ModelIndex:
        """Returns what is published of a model.

        Raises:
            UsageError: The repository does not have the model; names the near miss.
        """
        rows = {row.model: row for row in self.index().models}
        names = list(rows)
        if name not in rows:
            raise UsageError(
                f"no model '{name}' in {self._repository.store.url}.{perhaps(name, names)}",
                hint=f"it has {', '.join(names)}",
            )
        return self._repository.checked_model_index(rows[name])

    def select(
        self,
        name: str,
        machine: Machine,
        *,
        target: str | None = None,
        precision: str | None = None,
        allow_pending: bool = False,
        allow_seeded: bool = False,
    ) -> EngineEntry:
        """Picks the engine of a model that fits a machine; see :func:`zoo.selection.select`."""
        return select(
            self.model(name),
            machine,
            target=target,
            precision=precision,
            allow_pending=allow_pending,
            allow_seeded=allow_seeded,
        )

    def pull(self, name: str, entry: EngineEntry) -> Pulled:
        """Fetches an engine into the cache, unless it is there, and checks it.

        Raises:
            RepositoryError: Record or blob is missing, or the bytes are not what they should be.
        """
        record = self._repository.record(name, entry.record)
        if record is None:
            raise RepositoryError(f"{name}: the index names record {entry.record}, which is gone")
        if record.key != entry.record or record.engine != entry.engine:
            raise RepositoryError(
                f"{name}: record {entry.record} is not what the index says: it was changed",
                hint="nothing was loaded; tell the repository's maintainer",
            )
        engine = self._cache / "engines" / record.engine.sha256
        if not (engine.is_file() and sha256_file(engine) == record.engine.sha256):
            engine.parent.mkdir(parents=True, exist_ok=True)
            self._repository.fetch_blob(record.engine, engine)
        return Pulled(record=record, engine=engine)


def connect(store: str) -> Client:
    """Opens the repository at a URL, with the cache of this user."""
    return Client(Repository(open_store(store)), default_cache())


def default_store() -> str:
    """Returns where the repository is: ``$ZOO_STORE``, else ``./_repository``."""
    return os.environ.get("ZOO_STORE", "_repository")


def default_cache() -> Path:
    """Returns where engines are kept: ``$ZOO_HOME``, else the XDG cache."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caft-zoo"
