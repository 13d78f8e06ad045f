"""Mirrors a repository, or a part of it, for use without network.

Files are verified and copied unchanged with their signatures, so clients of the mirror trust the
same root. Engines excluded by a filter are still in the index; clients report them as missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from zoo.client.client import Client
from zoo.repository.blobs import missing
from zoo.schema.chunks import Pieces
from zoo.schema.index import EngineEntry
from zoo.schema.later import LaterBuildRecord
from zoo.schema.layout import (
    FIRST_ROOT,
    METADATA,
    TIMESTAMP,
    blob_key,
    hashed_key,
    pieces_key,
    record_key,
)
from zoo.schema.records import Blob
from zoo.schema.targets import arch_of
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import RepositoryError, SelectionError, TrustError
from zoo.util.names import no_model
from zoo.util.zstd import INSTALL, is_installed

_TRIES = 5
"""How often a repository that changes meanwhile is mirrored from its newest index again."""

_ROOT = re.compile(rf"{METADATA}\d+\.root\.json")

_UNSIGNED = ("candidates/", "exports/", "states/")
"""What builders write, and mirrors do not have."""

_MAX_BYTES = 2**20
"""Maximum size of ``repository.json``."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Engines to copy. None matches everything.

    Attributes:
        models: Model ids.
        archs: Architectures, ``sm86``.
        precisions: Precisions.
    """

    models: Collection[str] | None = None
    archs: Collection[str] | None = None
    precisions: Collection[str] | None = None

    def takes(self, engine: EngineEntry) -> bool:
        """Returns whether an engine matches the architectures and precisions."""
        archs = {arch_of(label) for label in engine.targets}
        return (self.archs is None or bool(archs & set(self.archs))) and (
            self.precisions is None or engine.precision in self.precisions
        )


@dataclass
class Mirrored:
    """Result of mirroring.

    Attributes:
        engines: Number of engines that match the filter; all are in the mirror now.
        copied: Number of objects that were copied because the mirror did not have them.
        bytes: Total size of the copied objects.
    """

    engines: int = 0
    copied: int = 0
    bytes: int = 0


def mirror(
    client: Client,
    destination: ObjectStore,
    wanted: Filter,
    say: Callable[[str], None] = lambda text: None,
) -> Mirrored:
    """Copies a repository, skipping objects that are up to date and resuming interrupted copies.

    Args:
        client: Client of the repository.
        destination: Store to copy to.
        wanted: Engines to copy.
        say: Called with the name of each engine.

    Raises:
        UsageError: The repository has no model of a name; nothing is written.
        SelectionError: No engine matches the filter; nothing is written.
        RepositoryError: An object is missing or its digest does not match, or the destination
            contains a different repository.
        TrustError: The index has expired, or its signatures are not valid.
    """
    result = Mirrored()
    _check_chosen(client, wanted)
    with destination.lock("publish"):  # no garbage is collected there, nobody else mirrors to it
        for remaining in reversed(range(_TRIES)):
            version: object = None
            try:
                client.index()
                client.signed.must_be_fresh()
                version = dict(client.signed.metadata())[TIMESTAMP]
                _copy(client, destination, wanted, say, result)
            except SelectionError:
                raise
            except (RepositoryError, TrustError):
                if not remaining or not _has_moved(client, version):
                    raise
                result.engines = 0
            else:
                return result
    raise AssertionError("unreachable")


def _check_chosen(client: Client, wanted: Filter) -> None:
    """Checks that there is something to copy, before anything is written.

    Raises:
        UsageError: The repository has no model of a name.
        SelectionError: No engine matches the filter.
    """
    rows = client.index().models
    names = [row.model for row in rows]
    for name in wanted.models or ():
        if name not in names:
            raise no_model(name, names, {row.family for row in rows})
    models = names if wanted.models is None else wanted.models
    if not any(wanted.takes(engine) for name in models for engine in client.model(name).engines):
        raise _nothing(client)


def _nothing(client: Client) -> SelectionError:
    return SelectionError(
        f"{client.repository.store.url}: no engine matches the filter",
        hint="list the published engines with zoo list",
    )


def _has_moved(client: Client, version: object) -> bool:
    """Whether the index was signed again since: what was missing is no longer named."""
    client.signed.look_again()
    client.index()
    return bool(dict(client.signed.metadata())[TIMESTAMP] != version)


def _copy(
    client: Client,
    destination: ObjectStore,
    wanted: Filter,
    say: Callable[[str], None],
    result: Mirrored,
) -> None:
    """Copies one version of the index, and what it names."""
    index, signed = client.index(), client.signed
    metadata = dict(signed.metadata())
    timestamp = metadata.pop(TIMESTAMP)
    roots = {key: metadata.pop(key) for key in list(metadata) if _ROOT.fullmatch(key)}
    _check_destination(client.repository.store.url, roots, destination)
    if destination.size(TIMESTAMP) is None:  # it belongs to this repository from now on
        for key, data in roots.items():
            _put(destination, key, data, result)
    if FIRST_ROOT not in roots:
        say(
            f"{client.repository.store.url} lacks roots before {next(iter(roots))}: readers that "
            "trust an older one can't read the mirror"
        )
    models = [row.model for row in index.models]
    if wanted.models is not None:
        models = [name for name in models if name in wanted.models]
    for name in models:
        for entry in filter(wanted.takes, client.model(name).engines):
            note = _copy_engine(client, name, entry, destination, result)
            result.engines += 1
            say(f"{name} {', '.join(entry.targets)}{note}")
    if not result.engines:
        raise _nothing(client)
    _copy_index(client, models, destination, result)
    destination.put(
        "repository.json", client.repository.store.get("repository.json", limit=_MAX_BYTES)
    )
    signed.must_be_fresh()
    for key, data in metadata.items():
        _put(destination, key, data, result)
    # Last, so that readers never see a timestamp of files that are not there yet; the roots
    # directly before it, because the timestamp before may not be signed with their keys.
    for key, data in roots.items():
        _put(destination, key, data, result)
    destination.put(TIMESTAMP, timestamp)


def _copy_index(
    client: Client, models: Collection[str], destination: ObjectStore, result: Mirrored
) -> None:
    for path in ("index.json", *(f"index/{name}.json" for name in models)):
        data = client.signed.read(path)
        assert data is not None
        _put(destination, hashed_key(path, sha256_bytes(data)), data, result)
        destination.put(path, data)


def _check_destination(url: str, roots: dict[str, bytes], destination: ObjectStore) -> None:
    """Checks that the destination is empty or a mirror of the same repository.

    Raises:
        RepositoryError: It has roots of another repository, or is one that is not signed yet.
    """
    same = [destination.get(key) == data for key, data in roots.items() if _has(destination, key)]
    signed = destination.size(TIMESTAMP) is not None or _has_any(destination, METADATA)
    if (signed and not same) or not all(same):
        raise RepositoryError(
            f"{destination.url}: contains a different repository with its own root",
            hint=f"nothing was written; use an empty destination or a mirror of {url}",
        )
    if not same and any(_has_any(destination, prefix) for prefix in _UNSIGNED):
        raise RepositoryError(
            f"{destination.url}: contains a repository that is not signed yet",
            hint=f"nothing was written; use an empty destination or a mirror of {url}",
        )


def _has(store: ObjectStore, key: str) -> bool:
    return store.size(key) is not None


def _has_any(store: ObjectStore, prefix: str) -> bool:
    return next(iter(store.list(prefix)), None) is not None


def _copy_engine(
    client: Client, model: str, entry: EngineEntry, destination: ObjectStore, result: Mirrored
) -> str:
    """Copies an engine, its other blobs and its record; returns a note on them, perhaps empty."""
    repository = client.repository
    note = _copy_chunks(client, entry, destination, result)
    data = repository.listed.read(model, entry)
    record = repository.listed.parse_any(model, entry, data)
    for blob in (*record.blobs, *entry.documents.values()):
        if not (entry.chunks_only and blob == record.engine):
            _copy_blob(client, blob, destination, result)
    _put(destination, record_key(model, record.key), data, result)
    later = isinstance(record, LaterBuildRecord)
    return f", which a later version of caft-zoo wrote{note}" if later else note


def _copy_chunks(
    client: Client, entry: EngineEntry, destination: ObjectStore, result: Mirrored
) -> str:
    """Copies the chunks of an engine; returns a note if the mirror has to do without them.

    Its readers then fetch the whole engine, which is copied too.

    Raises:
        MissingPackageError: The engine is stored as chunks only, and zstd is not installed.
        RepositoryError: It is stored as chunks only, and some are missing.
    """
    chunks, blobs = client.repository.chunks, client.repository.blobs
    if entry.chunks is None:
        return ""
    if entry.chunks_only:
        chunks.must_read()
    if not is_installed():
        return f", without its chunks, for which zstd is needed: {INSTALL}"
    try:
        packs = chunks.list_of(entry.engine, entry.chunks).packs
    except KeyError:
        packs = ()
    if not packs or not all(map(blobs.has, packs)):
        if entry.chunks_only:
            raise missing(client.repository.store.url, entry.engine)
        return ", without its chunks, which are missing"
    for blob in (*packs, entry.chunks):  # never a list of packs that are not there
        _copy_blob(client, blob, destination, result)
    if entry.chunks_only:
        pieces = Pieces(whole=entry.engine, listed=entry.chunks, packs=packs)
        _put(destination, pieces_key(entry.engine.sha256), pieces.to_json(), result)
    return ""


def _copy_blob(client: Client, blob: Blob, destination: ObjectStore, result: Mirrored) -> None:
    key = blob_key(blob.sha256)
    if destination.size(key) == blob.size and not _is_damaged(destination, blob):
        return
    with client.fetched(blob) as path:
        destination.delete(key)  # a truncated or damaged copy
        destination.put_file(key, path)
    result.copied += 1
    result.bytes += blob.size


def _is_damaged(destination: ObjectStore, blob: Blob) -> bool:
    """Returns whether a local copy's digest differs; clients check those on servers on download."""
    file = destination.local_path(blob_key(blob.sha256))
    return file is not None and sha256_file(file) != blob.sha256


def _put(destination: ObjectStore, key: str, data: bytes, result: Mirrored) -> None:
    if destination.size(key) == len(data) and destination.get(key) == data:
        return
    destination.put(key, data)
    result.copied += 1
    result.bytes += len(data)
