"""Repository client: downloads, checks and loads engines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.client.chunked import ChunkedDownloads, Counter
from zoo.client.corrections import untold
from zoo.client.engine_files import EngineFiles, has, not_writable
from zoo.client.first_use import Ask
from zoo.client.roots import TrustHome, trusted_root
from zoo.client.trust import SignedIndex
from zoo.repository.chunked import Transfer
from zoo.repository.repository import Repository
from zoo.schema.documents import documents
from zoo.schema.index import EngineEntry, Index, ModelIndex
from zoo.schema.layout import TIMESTAMP
from zoo.schema.licences import LICENCE_FILE, NOTICE_FILE
from zoo.schema.records import Blob, BuildRecord
from zoo.stores import Progress, open_store
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import RepositoryError, UsageError
from zoo.util.files import make_way, write_whole
from zoo.util.folders import cache_folder, config_folder
from zoo.util.locks import is_not_mine
from zoo.util.names import listed, perhaps_matching

if TYPE_CHECKING:
    from zoo.runtime import Session


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """An engine in the local cache whose digest was checked.

    Attributes:
        record: The engine's build record.
        engine: Path of the engine file.
        transfer: What its download cost; None if it was in the cache.
    """

    record: BuildRecord
    engine: Path
    transfer: Transfer | None = None

    def open(self) -> Session:
        """Loads the engine."""
        from zoo.runtime import open_session

        return open_session(self.engine, self.record.inputs, self.record.engine.size)


class Client:
    """Reads a repository and caches its engines.

    Args:
        repository: Repository to read, through ``signed``.
        cache: Folder in which engines and build records are cached.
        signed: The repository's signed index.
    """

    def __init__(self, repository: Repository, cache: Path, signed: SignedIndex) -> None:
        self.repository = repository
        self.signed = signed
        self._cache = cache
        self._files = EngineFiles(repository.blobs, cache)
        self._chunks = ChunkedDownloads(repository, cache)

    def index(self) -> Index:
        """Returns the repository's index.

        Raises:
            RepositoryError: Nothing has been published.
        """
        index = self.repository.index()
        if index is None:
            raise nothing_published(self.repository.store.url)
        return index

    def model(self, name: str) -> ModelIndex:
        """Returns the index of a model's published engines.

        Raises:
            UsageError: The repository does not have the model; suggests the closest name.
        """
        model = self.repository.model_index(name) if re.fullmatch("[a-z0-9_]+", name) else None
        if model is None:
            names = [row.model for row in self.index().models]
            raise UsageError(
                f"no model '{name}' in {self.repository.store.url}.{perhaps_matching(name, names)}",
                hint=f"available models: {listed(names)}",
            )
        return model

    def pull(
        self,
        name: str,
        entry: EngineEntry,
        progress: Progress | None = None,
        *,
        seeds: Sequence[Path] = (),
        whole: bool = False,
    ) -> Pulled:
        """Returns an engine from the cache, downloading it first if necessary.

        Resumes interrupted downloads. If several processes request the same engine, only one
        downloads it. Of an engine that is also stored as chunks, only those that this machine lacks
        are downloaded, if that is much less.

        Args:
            name: The model's id.
            entry: The engine.
            progress: Called during the download.
            seeds: Files that may have chunks of the engine, beside the model's cached engines.
            whole: Whether to download the whole engine in any case, if it is stored whole.

        Raises:
            RepositoryError: The record or blob is missing, or its digest does not match.
            TrustError: The engine is not cached and the repository's index has expired.
            MissingPackageError: Seeds were given, and pyfastcdc is not installed; or engines are
                stored as chunks only, and zstd is not installed.
        """
        record = self._record(name, entry)
        transfers: list[Transfer] = []

        def download(path: Path) -> None:
            if entry.chunks is not None and (entry.chunks_only or not whole):
                made = self._chunks.fetch(
                    name, lambda: self.model(name), entry, path, progress, seeds
                )
                if made is not None:
                    transfers.append(made)
                    return
            counter = Counter(progress)
            self._files.fetch(record.engine, path, counter)
            transfers.append(counter.transfer(record.engine.size))

        engine = self._files.get(
            record.engine, before_download=self.signed.must_be_fresh, download=download
        )
        return Pulled(record=record, engine=engine, transfer=transfers[0] if transfers else None)

    def record(self, name: str, entry: EngineEntry) -> BuildRecord:
        """Returns the build record of an engine that other machines download.

        Raises:
            RepositoryError: The record is missing, or its digest does not match.
            TrustError: The repository's index has expired.
        """
        self.signed.must_be_fresh()
        return self._record(name, entry)

    def documents(self, name: str, entry: EngineEntry) -> dict[str, Path]:
        """Returns the LICENSE and NOTICE of an engine, downloading them first if necessary.

        Those of the index replace those of the build record, which may have been wrong.

        Raises:
            RepositoryError: One is missing or damaged, or the cache may not be written.
        """
        record = self._record(name, entry)
        files, made = record.files, documents(self.model(name), record)
        blobs = {word: files[word] for word in (LICENCE_FILE, NOTICE_FILE) if word in files}
        folder = self._cache / "documents" / f"{name}-{entry.engine.sha256}"
        paths = {}
        for word, blob in {**blobs, **entry.documents}.items():
            if word not in (LICENCE_FILE, NOTICE_FILE):
                continue  # of a later version, which may name it as it likes
            paths[word] = folder / word
            if has(paths[word], blob.sha256):
                continue
            if sha256_bytes(text := made.get(word, b"")) == blob.sha256:
                self._write(paths[word], text)  # mirrors of earlier versions lack corrected ones
            else:
                self._files.fetch(blob, paths[word])
        return paths

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_whole(path, data)
        except OSError as error:
            raise not_writable(path, error) from error

    def corrections(self, name: str, entry: EngineEntry) -> list[str]:
        """Returns sentences about corrected facts of an engine's model, each once."""
        return untold(self._cache, self.model(name), entry)

    def fetched(self, blob: Blob) -> AbstractContextManager[Path]:
        """Downloads a blob to a temporary file; see :meth:`EngineFiles.fetched`."""
        return self._files.fetched(blob)

    def onnx_of(self, record: BuildRecord, scratch: Path) -> Path | None:
        """Returns the ONNX model that an engine was built from.

        Args:
            record: The engine's build record, which contains the digest of the ONNX model.
            scratch: Folder to download to.

        Returns:
            Path of the model, or None if the repository does not have it or can't be reached.
        """
        try:
            blob = self.repository.blobs.find(record.inputs.onnx)
            return self.repository.blobs.whole(blob, scratch) if blob else None
        except RepositoryError:
            return None

    def _record(self, name: str, entry: EngineEntry) -> BuildRecord:
        path = self._cache / "records" / f"{entry.record_file.sha256}.json"
        if path.is_file() and sha256_file(path) == entry.record_file.sha256:
            return self.repository.listed.parse(name, entry, path.read_bytes())
        self.signed.must_be_fresh()
        data = self.repository.listed.read(name, entry)
        record = self.repository.listed.parse(name, entry, data)
        try:
            make_way(path)
            write_whole(path, data)
        except OSError as error:
            if not is_not_mine(error):
                raise
        return record


def connect(
    store: str,
    *,
    trust: str | None = None,
    anonymous: bool = False,
    allow_stale: bool = False,
    say: Callable[[str], None] = lambda text: None,
    ask: Ask | None = None,
) -> Client:
    """Opens a repository with the current user's trusted roots and cache.

    Args:
        store: URL or path of the repository.
        trust: Root of trust on first use: a file, or the SHA-256 of the repository's first root.
        anonymous: Read a bucket without credentials.
        allow_stale: Accept an expired index.
        say: Called with messages for the user.
        ask: Asks whether to trust a repository on first use; None if nobody can answer.

    Raises:
        RepositoryError: Nothing has been published at ``store``.
        TrustError: The repository is not trusted yet, or its signatures are not valid.
    """
    opened, home = open_store(store, anonymous=anonymous), trust_home()
    if not trust and home.root(opened.url) is None and opened.size(TIMESTAMP) is None:
        raise nothing_published(opened.url)
    signed = SignedIndex(
        opened,
        home.folder(opened.url),
        trusted_root(opened, home, trust, ask),
        allow_stale=allow_stale,
        say=say,
    )
    return Client(Repository(opened, signed), default_cache(), signed)


def nothing_published(url: str) -> RepositoryError:
    """Returns the error to raise if a store contains no published repository."""
    return RepositoryError(
        f"{url}: no repository, or nothing has been published in it",
        hint="set --store or ZOO_STORE to a repository; or create one, in a checkout of "
        "the farm: make zoo MODELS=efficientnet_lite0",
    )


def default_store() -> str:
    """Returns the default repository: ``$ZOO_STORE``, else ``./_repository``."""
    return os.environ.get("ZOO_STORE") or "_repository"


def default_cache() -> Path:
    """Returns the cache folder: ``$ZOO_HOME``, else ``caft-zoo`` in the XDG cache folder."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home)
    return cache_folder() / "caft-zoo"


def trust_home() -> TrustHome:
    """Returns where trusted roots are stored: ``$ZOO_HOME``, else the XDG configuration folder."""
    if home := os.environ.get("ZOO_HOME"):
        roots = Path(home) / "trust"
    else:
        roots = config_folder() / "caft-zoo" / "trust"
    return TrustHome(roots=roots, verified=default_cache() / "repositories")
