"""Client: finds the engine that fits, fetches it, checks it, opens it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.client.partials import own_partial
from zoo.client.selection import Machine, select
from zoo.client.trust import SignedIndex, TrustHome, trusted_root
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry, Index, ModelIndex
from zoo.schema.layout import TIMESTAMP
from zoo.schema.records import Blob, BuildRecord
from zoo.stores import Progress, open_store
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError, UsageError
from zoo.util.files import write_whole
from zoo.util.locks import is_not_mine, turn
from zoo.util.names import perhaps

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
        repository: Which one, with its index as it is signed.
        cache: Folder that keeps engines and their records.
        signed: That index.
    """

    def __init__(self, repository: Repository, cache: Path, signed: SignedIndex) -> None:
        self.repository = repository
        self.signed = signed
        self._cache = cache

    def index(self) -> Index:
        """Returns the repository's index.

        Raises:
            RepositoryError: Nothing is published there.
        """
        index = self.repository.index()
        if index is None:
            raise nothing_published(self.repository.store.url)
        return index

    def model(self, name: str) -> ModelIndex:
        """Returns what is published of a model.

        Raises:
            UsageError: The repository does not have the model; names the near miss.
        """
        found = self.repository.model_index(name) if re.fullmatch("[a-z0-9_]+", name) else None
        if found is None:
            names = [row.model for row in self.index().models]
            raise UsageError(
                f"no model '{name}' in {self.repository.store.url}.{perhaps(name, names)}",
                hint=f"it has {', '.join(names)}",
            )
        return found

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
        """Picks the engine that fits a machine; see :func:`zoo.client.selection.select`."""
        return select(
            self.model(name),
            machine,
            target=target,
            precision=precision,
            allow_pending=allow_pending,
            allow_seeded=allow_seeded,
        )

    def pull(self, name: str, entry: EngineEntry, progress: Progress | None = None) -> Pulled:
        """Fetches an engine into the cache, unless it is there, and checks it.

        What an interruption leaves is gone on from. Several processes may ask at once: one fetches.

        Raises:
            RepositoryError: Record or blob is missing, or the bytes are not what they should be.
            TrustError: It is not in the cache, and the repository's index is expired.
        """
        record = self._record(name, entry)
        engine = self._cache / "engines" / record.engine.sha256
        if not _has(engine, record.engine.sha256):  # of a cache with everything, nothing is written
            with self._turn(record.engine.sha256):
                if not _has(engine, record.engine.sha256):
                    self.signed.must_be_fresh()
                    self._fetch(record.engine, engine, progress)
        return Pulled(record=record, engine=engine)

    def _fetch(self, blob: Blob, path: Path, progress: Progress | None = None) -> None:
        """Downloads a blob into the cache and checks it.

        Raises:
            RepositoryError: It is missing or damaged, or the cache may not be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with own_partial(path) as partial:
                self.repository.blobs.fetch(blob, path, partial=partial, progress=progress)
        except OSError as error:
            raise RepositoryError(
                f"can't write {path.parent}: {error.strerror}",
                hint="set ZOO_HOME to a folder that you may write to",
            ) from error

    @contextmanager
    def fetched(self, blob: Blob) -> Iterator[Path]:
        """Yields a file with a blob's bytes, checked, which is gone afterwards.

        What an interruption leaves is in the cache, as of a download, and gone on from.

        Raises:
            RepositoryError: It is missing, or its bytes are not what they should be.
        """
        path = self._cache / "engines" / f"{blob.sha256}.mirror"
        with self._turn(path.name):
            self._fetch(blob, path)
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def onnx_of(self, record: BuildRecord, scratch: Path) -> Path | None:
        """Returns the ONNX that an engine was built from, checked.

        Args:
            record: The engine's, which names the ONNX by its digest.
            scratch: Folder for what has to be fetched.

        Returns:
            The file; None where the repository does not keep it or can't be reached.
        """
        try:
            blob = self.repository.blobs.find(record.inputs.onnx)
            return self.repository.blobs.whole(blob, scratch) if blob else None
        except RepositoryError:
            return None

    def _record(self, name: str, entry: EngineEntry) -> BuildRecord:
        path = self._cache / "records" / f"{entry.record_file.sha256}.json"
        if path.is_file() and sha256_file(path) == entry.record_file.sha256:
            return self.repository.parse_listed(name, entry, path.read_bytes())
        self.signed.must_be_fresh()
        data = self.repository.listed_bytes(name, entry)
        record = self.repository.parse_listed(name, entry, data)
        try:
            write_whole(path, data)
        except OSError as error:
            if not is_not_mine(error):
                raise
        return record

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with turn(self._cache / "locks" / name):
            yield


def _has(path: Path, sha256: str) -> bool:
    """Whether a file is there and its bytes are what they should be."""
    return path.is_file() and sha256_file(path) == sha256


def connect(
    store: str,
    *,
    trust: str | None = None,
    anonymous: bool = False,
    allow_stale: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Client:
    """Opens the repository at a URL, with the trust and the cache of this user.

    Args:
        store: Where it is.
        trust: Its root, the first time: a file, or the SHA-256 of the repository's first root.
        anonymous: Whether to read a bucket without credentials.
        allow_stale: Whether an expired index will do.
        say: Takes what the user should know.

    Raises:
        RepositoryError: Nothing is published there.
        TrustError: It is not trusted yet, or offers what its keys do not vouch for.
    """
    opened, home = open_store(store, anonymous=anonymous), trust_home()
    if not trust and home.root(opened.url) is None and opened.size(TIMESTAMP) is None:
        raise nothing_published(opened.url)
    signed = SignedIndex(
        opened,
        home.folder(opened.url),
        trusted_root(opened, home, trust),
        allow_stale=allow_stale,
        say=say,
    )
    return Client(Repository(opened, signed), default_cache(), signed)


def nothing_published(url: str) -> RepositoryError:
    """Returns the error of a place where there is no repository."""
    return RepositoryError(
        f"{url}: no repository here, or nothing published in it",
        hint="name one with --store or ZOO_STORE, or make one: make zoo MODELS=efficientnet_lite0",
    )


def default_store() -> str:
    """Returns where the repository is: ``$ZOO_STORE``, else ``./_repository``."""
    return os.environ.get("ZOO_STORE", "_repository")


def default_cache() -> Path:
    """Returns where engines are kept: ``$ZOO_HOME``, else the XDG cache."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caft-zoo"


def trust_home() -> TrustHome:
    """Returns where this user's trust lies: ``$ZOO_HOME``, else the XDG configuration."""
    if home := os.environ.get("ZOO_HOME"):
        roots = Path(home) / "trust"
    else:
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        roots = Path(config) / "caft-zoo" / "trust"
    return TrustHome(roots=roots, verified=default_cache() / "repositories")
