"""Runs python-tuf on an object store and explains its errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from zoo.schema.layout import METADATA, TIMESTAMP
from zoo.stores import LocalStore, ObjectStore
from zoo.util.errors import RepositoryError, SetbackError, TooLongError, TrustError
from zoo.util.late import imported_later

with imported_later("boto3"):  # securesystemslib imports it, to sign with keys of AWS
    from tuf.api import exceptions as tuf
    from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp
    from tuf.ngclient import Updater, UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface

_TRIES = 4
_PAUSE = 0.05

_MOVING = (tuf.UnsignedMetadataError, tuf.DownloadHTTPError, FileExistsError)
"""What a reader meets that read one file before, and the next after, a key was rotated or garbage
was collected, or that another process links ``root.json`` at this moment. It starts again."""

TIMESTAMP_LIMIT = 2**18
"""Maximum bytes of ``timestamp.json``."""

_LIMITS = UpdaterConfig(timestamp_max_length=TIMESTAMP_LIMIT, max_root_rotations=2**12)
"""Signatures of ML-DSA keys have up to 9 kB each: two or three exceed python-tuf's 16 kB.
Readers that trust the first root must get over more than 256 rotations, too."""

_REPORT = "it was not used; report it to the repository's maintainers"

# Messages and hints for python-tuf's exceptions, subclasses before their bases.
_MEANINGS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        tuf.BadVersionNumberError,
        "its index is older than one read before, or mixes files of different versions (rollback "
        "or mix-and-match)",
        "an attacker may be withholding newer engines; " + _REPORT,
    ),
    (
        tuf.LengthOrHashMismatchError,
        "a file of its index does not match the digest or length in the signed metadata",
        "retry if something is being published right now; otherwise " + _REPORT,
    ),
    (
        tuf.DownloadLengthMismatchError,
        "a file of its index exceeds the maximum length and was not read to the end",
        _REPORT,
    ),
    (
        tuf.UnsignedMetadataError,
        "its index is not signed by the keys in its root",
        "it was modified, or signed with a key that is not trusted, or no longer trusted; "
        + _REPORT,
    ),
)


class _StoreFetcher(FetcherInterface):
    """Reads metadata from an object store, up to the maximum length."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError  # only download_bytes, which is overridden, calls this

    def download_bytes(self, url: str, max_length: int) -> bytes:
        try:
            return self._store.get(url, limit=max_length)
        except KeyError as error:
            self._check_folder()
            raise tuf.DownloadHTTPError(f"{url} is missing", 404) from error
        except TooLongError as error:
            raise tuf.DownloadLengthMismatchError(str(error)) from error
        except RepositoryError as error:
            raise tuf.DownloadError(str(error)) from error

    def _check_folder(self) -> None:
        """Checks that the store's folder is there; a disk that is not is like a server that is not.

        Raises:
            DownloadError: The store is a folder that does not exist.
        """
        if isinstance(self._store, LocalStore) and not self._store.root.is_dir():
            absent = RepositoryError(
                f"{self._store.url}: no such folder", hint="if it is on another disk, mount it"
            )
            raise tuf.DownloadError(str(absent)) from absent


class _AllowExpiredUpdater(Updater):
    """Accepts expired metadata by comparing expiry dates with year 1."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._trusted_set.reference_time = datetime.min.replace(tzinfo=timezone.utc)


def updater(store: ObjectStore, folder: Path, root: bytes, *, allow_expired: bool) -> Updater:
    """Returns a refreshed python-tuf client of a repository.

    Args:
        store: The repository's store.
        folder: Folder in which metadata is cached; not safe for concurrent use.
        root: Trusted root metadata.
        allow_expired: Accept expired metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    updater_class = _AllowExpiredUpdater if allow_expired else Updater
    for remaining in reversed(range(_TRIES)):
        try:
            client = updater_class(
                metadata_dir=str(folder),
                metadata_base_url=METADATA,
                fetcher=_StoreFetcher(store),
                config=_LIMITS,
                bootstrap=root,
            )
            client.refresh()
        except _MOVING:
            if not remaining:
                raise
            time.sleep(_PAUSE)
        else:
            return client
    raise AssertionError("unreachable")


def metadata_files(store: ObjectStore, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields key and content of all metadata that a verified timestamp covers, roots first.

    Args:
        store: The repository's store.
        folder: Metadata folder of a refreshed :func:`updater`.
    """
    fetch = _StoreFetcher(store).download_bytes
    yield from roots(store, folder).items()
    timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
    snapshot_bytes = (folder / "snapshot.json").read_bytes()
    snapshot = Metadata[Snapshot].from_bytes(snapshot_bytes)
    for name, meta in snapshot.signed.meta.items():
        key = f"{METADATA}{meta.version}.{name}"
        data = fetch(key, meta.length or _LIMITS.targets_max_length)
        meta.verify_length_and_hashes(data)
        yield key, data
    version = timestamp.signed.snapshot_meta.version
    yield f"{METADATA}{version}.snapshot.json", snapshot_bytes
    yield TIMESTAMP, (folder / "timestamp.json").read_bytes()


def roots(store: ObjectStore, folder: Path) -> dict[str, bytes]:
    """Returns key and content of all roots, oldest first: also those before the trusted one.

    Readers that trust an older root follow the chain, so each root before the trusted one must have
    signed the next, as for them. Without a complete chain in the store, the newer part is returned.

    Args:
        store: The repository's store.
        folder: Metadata folder of a refreshed :func:`updater`.
    """
    files = sorted((folder / "root_history").glob("*.root.json"), key=_root_version)
    chain = {f"{METADATA}{path.name}": path.read_bytes() for path in files}
    oldest = Metadata[Root].from_bytes(next(iter(chain.values())))
    while oldest.signed.version > 1:
        key = f"{METADATA}{oldest.signed.version - 1}.root.json"
        try:
            data = store.get(key, limit=_LIMITS.root_max_length)
            before = Metadata[Root].from_bytes(data)
            before.verify_delegate(Root.type, before)
            before.verify_delegate(Root.type, oldest)
        except (KeyError, TooLongError, tuf.RepositoryError):
            break
        if before.signed.version != oldest.signed.version - 1:
            break
        chain = {key: data, **chain}
        oldest = before
    return chain


def _root_version(path: Path) -> int:
    return int(path.name.partition(".")[0])


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Translates python-tuf's exceptions.

    Raises:
        TrustError: The repository's signatures are missing or not valid.
        SetbackError: The index has expired, or the repository can't be reached.
    """
    try:
        yield
    except tuf.ExpiredMetadataError as error:
        raise SetbackError(
            TrustError(
                f"{url}: its index has expired and has not been signed again ({error})",
                hint="the repository may be unmaintained, an attacker may be withholding updates, "
                "or this machine's clock may be wrong; to use it anyway, add --allow-stale",
            )
        ) from error
    except tuf.DownloadHTTPError as error:
        raise TrustError(
            f"{url}: its index is not signed, or incomplete: {error}",
            hint="a published repository has metadata/timestamp.json and all files it refers to",
        ) from error
    except tuf.DownloadLengthMismatchError as error:
        raise _explained(url, error) from error
    except tuf.DownloadError as error:
        cause = error.__cause__
        failed = cause if isinstance(cause, RepositoryError) else RepositoryError(f"{url}: {error}")
        raise SetbackError(failed) from error
    except tuf.RepositoryError as error:
        raise _explained(url, error) from error


def _explained(url: str, error: Exception) -> TrustError:
    for kind, meaning, hint in _MEANINGS:
        if isinstance(error, kind):
            return TrustError(f"{url}: {meaning}: {error}", hint=hint)
    return TrustError(f"{url}: its signed index can't be read: {error}", hint=_REPORT)
