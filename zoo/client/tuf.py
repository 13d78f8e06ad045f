"""python-tuf over an object store, and its refusals in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Snapshot, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from zoo.schema.layout import METADATA, TIMESTAMP
from zoo.stores import ObjectStore
from zoo.util.errors import RepositoryError, SetbackError, TooLongError, TrustError

_TRIES = 10
_TELL = "nothing of it was used; tell the repository's maintainers"

# What an exception of python-tuf means, the more special first.
_MEANINGS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        tuf.BadVersionNumberError,
        "it offers an older index than was seen here before, or one made of parts that do not "
        "belong together (a rollback, or a mix of old and new)",
        "somebody may be hiding newer engines; " + _TELL,
    ),
    (
        tuf.LengthOrHashMismatchError,
        "a part of its signed index is not what the rest says of it: it was changed",
        "if something is being published right now, try again; else " + _TELL,
    ),
    (
        tuf.DownloadLengthMismatchError,
        "a file of its index is longer than it may be; it was not read to its end",
        _TELL,
    ),
    (
        tuf.UnsignedMetadataError,
        "its index is not signed by the keys that its root names",
        "it was changed, or signed with a key that is not, or no longer, trusted; " + _TELL,
    ),
)


class _StoreFetcher(FetcherInterface):
    """Reads metadata from an object store, never more than it may be long."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError  # download_bytes knows the limit

    def download_bytes(self, url: str, max_length: int) -> bytes:
        try:
            return self._store.get(url, limit=max_length)
        except KeyError as error:
            raise tuf.DownloadHTTPError(f"there is no {url}", 404) from error
        except TooLongError as error:
            raise tuf.DownloadLengthMismatchError(str(error)) from error
        except RepositoryError as error:
            raise tuf.DownloadError(str(error)) from error


class _PatientUpdater(Updater):
    """Takes expired metadata: for it, no time has passed."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._trusted_set.reference_time = datetime.min.replace(tzinfo=timezone.utc)


def updater(store: ObjectStore, folder: Path, root: bytes, *, patient: bool) -> Updater:
    """Returns python-tuf's client of a repository.

    Args:
        store: Where the repository lies.
        folder: Keeps its metadata between runs; one process at a time.
        root: Root metadata that is trusted.
        patient: Whether expired metadata will do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = _PatientUpdater if patient else Updater
    for remaining in reversed(range(_TRIES)):
        try:
            made = kind(
                metadata_dir=str(folder),
                metadata_base_url=METADATA,
                fetcher=_StoreFetcher(store),
                config=UpdaterConfig(),
                bootstrap=root,
            )
            made.refresh()
        except FileExistsError:  # without locks, another process has just linked root.json
            if not remaining:
                raise
        else:
            return made
    raise AssertionError("unreachable")


def metadata_files(store: ObjectStore, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields key and bytes of all metadata that a verified timestamp vouches for, roots first.

    Args:
        store: Where the repository lies.
        folder: Of an :func:`updater` that was refreshed.
    """
    fetch = _StoreFetcher(store).download_bytes
    for path in sorted((folder / "root_history").iterdir(), key=_root_version):
        yield f"{METADATA}{path.name}", path.read_bytes()
    timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
    snapshot_bytes = (folder / "snapshot.json").read_bytes()
    snapshot = Metadata[Snapshot].from_bytes(snapshot_bytes)
    for name, meta in snapshot.signed.meta.items():
        key = f"{METADATA}{meta.version}.{name}"
        data = fetch(key, meta.length or UpdaterConfig().targets_max_length)
        meta.verify_length_and_hashes(data)
        yield key, data
    version = timestamp.signed.snapshot_meta.version
    yield f"{METADATA}{version}.snapshot.json", snapshot_bytes
    yield TIMESTAMP, (folder / "timestamp.json").read_bytes()


def _root_version(path: Path) -> int:
    return int(path.name.partition(".")[0])


@contextmanager
def refuse(url: str) -> Iterator[None]:
    """Turns python-tuf's exceptions into this project's, which say what happened.

    Raises:
        TrustError: The repository offers what its keys do not vouch for.
    """
    try:
        yield
    except tuf.ExpiredMetadataError as error:
        raise SetbackError(
            TrustError(
                f"{url}: its index is expired ({error}): nobody has vouched for it since",
                hint="it is not looked after, somebody holds newer ones back, or this machine's "
                "clock is wrong; --allow-stale takes it all the same",
            )
        ) from error
    except tuf.DownloadHTTPError as error:
        raise TrustError(
            f"{url}: its index is not signed, or not whole: {error}",
            hint="a repository that was published has metadata/timestamp.json and what that names",
        ) from error
    except tuf.DownloadLengthMismatchError as error:
        raise _in_words(url, error) from error
    except tuf.DownloadError as error:
        cause = error.__cause__
        failed = cause if isinstance(cause, RepositoryError) else RepositoryError(f"{url}: {error}")
        raise SetbackError(failed) from error
    except tuf.RepositoryError as error:
        raise _in_words(url, error) from error


def _in_words(url: str, error: Exception) -> TrustError:
    for kind, meaning, hint in _MEANINGS:
        if isinstance(error, kind):
            return TrustError(f"{url}: {meaning}: {error}", hint=hint)
    return TrustError(f"{url}: its signed index can't be read: {error}", hint=_TELL)
