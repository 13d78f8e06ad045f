"""Mirror: a repository, or a part of it, copied whole and verified to where there is no network.

Everything is copied as it is signed, signatures included: those who read the mirror trust the same
root. What was left out by a filter is named by the index and missing, and the client says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from zoo.client.client import Client
from zoo.schema.index import EngineEntry
from zoo.schema.layout import FIRST_ROOT, TIMESTAMP, blob_key, hashed_key, record_key
from zoo.schema.records import Blob
from zoo.schema.targets import arch_of
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import RepositoryError, SelectionError

_LARGEST = 2**20
"""Bytes that a root, or ``repository.json``, may have."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which engines are copied; what is None is not asked for.

    Attributes:
        models: Ids.
        archs: Of the targets, ``sm86``.
        precisions: Of the engines.
    """

    models: Collection[str] | None = None
    archs: Collection[str] | None = None
    precisions: Collection[str] | None = None

    def takes(self, engine: EngineEntry) -> bool:
        """Whether an engine passes."""
        archs = {arch_of(label) for label in engine.targets}
        return (self.archs is None or bool(archs & set(self.archs))) and (
            self.precisions is None or engine.precision in self.precisions
        )


@dataclass
class Mirrored:
    """What a run copied.

    Attributes:
        engines: How many the mirror has of those asked for.
        copied: Objects that were not there before.
        bytes: Their size.
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
    """Copies a repository. What is there already is left; what was interrupted is gone on from.

    Args:
        client: Reads the repository.
        destination: Where the copy goes.
        wanted: Which engines.
        say: Takes what is copied.

    Raises:
        SelectionError: Nothing passes the filter.
        RepositoryError: Something is missing, or is not what was signed; or the destination is
            another repository.
        TrustError: The index is not what its keys vouch for, or is expired.
    """
    index, signed, done = client.index(), client.signed, Mirrored()
    signed.must_be_fresh()
    _check_destination(client, destination)
    models = [row.model for row in index.models]
    if wanted.models is not None:
        models = [name for name in models if name in wanted.models]
    for name in models:
        for entry in filter(wanted.takes, client.model(name).engines):
            _copy_engine(client, name, entry, destination, done)
            done.engines += 1
            say(f"{name} {', '.join(entry.targets)}")
    if not done.engines:
        raise SelectionError(
            f"{client.repository.store.url}: no engine is what was asked for",
            hint="zoo list shows what there is",
        )
    for path in ("index.json", *(f"index/{name}.json" for name in models)):
        data = signed.read(path)
        assert data is not None
        _put(destination, hashed_key(path, sha256_bytes(data)), data, done)
        destination.put(path, data)
    destination.put(
        "repository.json", client.repository.store.get("repository.json", limit=_LARGEST)
    )
    for key, data in signed.metadata():
        if key != TIMESTAMP:
            _put(destination, key, data, done)
    destination.put(TIMESTAMP, dict(signed.metadata())[TIMESTAMP])
    return done


def _check_destination(client: Client, destination: ObjectStore) -> None:
    """Refuses to write over a repository that this is no copy of.

    Raises:
        RepositoryError: The destination has another root.
    """
    if destination.size(FIRST_ROOT) is None:
        return
    source = client.repository.store
    if source.size(FIRST_ROOT) is None or _root(source) != _root(destination):
        raise RepositoryError(
            f"{destination.url}: there is another repository, with a root of its own",
            hint=f"nothing was written; name a place that is empty, or a mirror of {source.url}",
        )


def _root(store: ObjectStore) -> bytes:
    return store.get(FIRST_ROOT, limit=_LARGEST)


def _copy_engine(
    client: Client, model: str, entry: EngineEntry, destination: ObjectStore, done: Mirrored
) -> None:
    repository = client.repository
    data = repository.listed_bytes(model, entry)
    record = repository.parse_listed(model, entry, data)
    for blob in record.blobs:
        _copy_blob(client, blob, destination, done)
    _put(destination, record_key(model, record.key), data, done)


def _copy_blob(client: Client, blob: Blob, destination: ObjectStore, done: Mirrored) -> None:
    key = blob_key(blob.sha256)
    if destination.size(key) == blob.size and not _is_damaged(destination, blob):
        return
    with client.fetched(blob) as path:
        destination.delete(key)  # one that was cut short by other means
        destination.put_file(key, path)
    done.copied += 1
    done.bytes += blob.size


def _is_damaged(destination: ObjectStore, blob: Blob) -> bool:
    """Whether a file of the copy has other bytes; a server's are checked as they are read."""
    file = destination.local_path(blob_key(blob.sha256))
    return file is not None and sha256_file(file) != blob.sha256


def _put(destination: ObjectStore, key: str, data: bytes, done: Mirrored) -> None:
    if destination.size(key) == len(data) and destination.get(key) == data:
        return
    destination.put(key, data)
    done.copied += 1
    done.bytes += len(data)
