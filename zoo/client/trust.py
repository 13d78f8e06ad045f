"""Trust: the index as it is signed, through TUF (https://theupdateframework.io).

A repository is trusted once, by its root: a file that its maintainers hand out, or that file's
SHA-256. From then on :class:`SignedIndex` gives only what the root's keys vouch for: nothing older
than what was seen before, nothing expired, nothing longer or other than what is signed. What was
read before is kept, and is still there without network.

The rules are python-tuf's; this module says where things lie and what went wrong, in words.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from zoo.schema.layout import FIRST_ROOT, hashed_key
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, SetbackError, TrustError
from zoo.util.files import write_whole
from zoo.util.locks import is_not_mine, turn

if TYPE_CHECKING:
    from tuf.ngclient import Updater

_ROOT_LIMIT = 512_000
_HOW = (
    "ask its maintainers for root.json or its SHA-256, by another way than the repository itself, "
    "and give it once: zoo list --store STORE --trust ROOT"
)


@dataclass(frozen=True, kw_only=True)
class TrustHome:
    """Where a user's trust, and what was verified, lie.

    Attributes:
        roots: Folder of the roots that the user trusts, one per repository.
        verified: Folder of what was read and verified, a folder per repository.
    """

    roots: Path
    verified: Path

    def root(self, url: str) -> bytes | None:
        """Returns the root that is trusted for a repository, None when there is none."""
        path = self._root_path(url)
        return path.read_bytes() if path.is_file() else None

    def trust(self, url: str, root: bytes) -> bool:
        """Trusts a root for a repository from now on; what another root vouched for is forgotten.

        Returns:
            Whether that is new.
        """
        if self.root(url) == root:
            return False
        path = self._root_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = self.folder(url)
        if folder.exists():
            shutil.rmtree(folder)
        write_whole(path, root)
        return True

    def folder(self, url: str) -> Path:
        """Returns the folder of what was verified of a repository."""
        return self.verified / _name(url)

    def _root_path(self, url: str) -> Path:
        return self.roots / f"{_name(url)}.root.json"


def _name(url: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-40:]
    return f"{readable}-{sha256_bytes(url.encode())[:12]}"


def read_root(store: ObjectStore, given: str) -> bytes:
    """Returns the root that a user names.

    Args:
        store: The repository's.
        given: Path of a ``root.json``, or the SHA-256 of the repository's first one.

    Raises:
        TrustError: There is no such file, it is no root, or the repository has another.
    """
    digest = given.removeprefix("sha256:").lower()
    if re.fullmatch("[0-9a-f]{64}", digest):
        try:
            data = store.get(FIRST_ROOT, limit=_ROOT_LIMIT)
        except KeyError as error:
            raise TrustError(f"{store.url}: there is no {FIRST_ROOT}: it is not signed") from error
        if (found := sha256_bytes(data)) != digest:
            raise TrustError(
                f"{store.url}: its root has the SHA-256 {found}, not the one that is to be trusted",
                hint="nothing was trusted; ask the maintainers which is right",
            )
        return data
    path = Path(given)
    try:
        data = path.read_bytes()
        if json.loads(data)["signed"]["_type"] != "root":
            raise ValueError
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}", hint=_HOW) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrustError(f"{path}: no root of a repository", hint=_HOW) from error
    return data


def trusted_root(store: ObjectStore, home: TrustHome, given: str | None) -> bytes:
    """Returns the root to start from, and remembers one that is given.

    Raises:
        TrustError: None is given and none is known for this repository.
    """
    if given:
        root = read_root(store, given)
        try:
            home.trust(store.url, root)
        except OSError as error:
            if not is_not_mine(error):
                raise  # otherwise it is trusted this time, and not remembered
        return root
    known = home.root(store.url)
    if known is None:
        own = Path(f"{store.url}.keys") / "root.json"
        raise TrustError(
            f"{store.url}: this repository is not trusted yet",
            hint=f"if it is your own: zoo list --store {shlex.quote(store.url)} --trust "
            f"{shlex.quote(str(own))}"
            if own.is_file()
            else _HOW.replace("STORE", shlex.quote(store.url)),
        )
    return known


class SignedIndex:
    """The index of a repository, verified.

    Several processes may read through one folder at once: they take turns.

    Args:
        store: Where the repository lies.
        folder: Keeps metadata and what was verified, between runs.
        root: Root metadata that is trusted.
        allow_stale: Whether expired metadata will do, though somebody may hold back newer.
        say: Takes what the user should know.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        root: bytes,
        *,
        allow_stale: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._root = root
        self._allow_stale = allow_stale
        self._say = say
        self._updater: Updater | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.cause: TrustError | RepositoryError | None = None
        """Why only what was verified before is given; None where the repository was asked."""

    def read(self, path: str) -> bytes | None:
        """Returns a file of the index.

        Without network, or when what the repository has is expired, the file as it was when it was
        last verified.

        Args:
            path: ``index.json`` or ``index/<model>.json``.

        Returns:
            Its bytes; None when the repository signs no such file.

        Raises:
            TrustError: What the repository has is not what its keys vouch for; says how.
            RepositoryError: It can't be reached, and the file was never verified here.
        """
        with self._turn():
            if self.cause is None:
                try:
                    return self._fresh(path)
                except SetbackError as error:
                    self.cause = error.cause
            kept = self._folder / "verified" / quote(path, safe="")
            if not kept.is_file():
                raise self.cause
            since = datetime.fromtimestamp(kept.stat().st_mtime, timezone.utc)
            self._say(f"{self.cause.message}; going on with what was verified {since:%Y-%m-%d}")
            return kept.read_bytes()

    def expires(self) -> datetime | None:
        """Returns until when what was read is good, None before anything was."""
        from tuf.api.metadata import Metadata, Timestamp

        path = self._folder / "metadata" / "timestamp.json"
        if not path.is_file():
            return None
        return Metadata[Timestamp].from_bytes(path.read_bytes()).signed.expires

    def signers(self) -> tuple[str, ...]:
        """Returns the ids of the keys that vouch for what was read, none before anything was."""
        from tuf.api.metadata import Metadata, Root, Timestamp

        folder = self._folder / "metadata"
        if not (folder / "timestamp.json").is_file():
            return ()
        root = Metadata[Root].from_bytes((folder / "root.json").read_bytes())
        timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
        may = root.signed.roles[Timestamp.type].keyids
        return tuple(keyid for keyid in timestamp.signatures if keyid in may)

    def look_again(self) -> None:
        """Asks the repository anew at the next read: somebody may have published meanwhile."""
        self._updater = self.cause = None

    def must_be_fresh(self) -> None:
        """Raises what keeps the repository from giving all that it has, if anything does.

        Raises:
            TrustError: Its index is expired.
            RepositoryError: It can't be reached.
        """
        if self.cause is not None:
            raise self.cause

    def metadata(self) -> Iterator[tuple[str, bytes]]:
        """Yields key and bytes of the metadata that vouches for what was read, all bins included.

        Raises:
            TrustError: A part of it is not what the rest says of it.
            RepositoryError: It can't be read.
        """
        from zoo.client.tuf import metadata_files, refuse

        try:
            with self._turn(), refuse(self._store.url):
                yield from metadata_files(self._store, self._folder / "metadata")
        except SetbackError as error:
            raise error.cause from error

    def _fresh(self, path: str) -> bytes | None:
        from zoo.client.tuf import refuse, updater

        with refuse(self._store.url):
            if self._updater is None:
                self._updater = updater(
                    self._store, self._folder / "metadata", self._root, patient=self._allow_stale
                )
            info = self._updater.get_targetinfo(path)
        if info is None:
            return None
        kept = self._folder / "verified" / quote(path, safe="")
        digest = info.hashes["sha256"]
        if kept.is_file() and sha256_bytes(kept.read_bytes()) == digest:
            return kept.read_bytes()
        key = hashed_key(path, digest)
        try:
            data = self._store.get(key, limit=info.length)
        except KeyError as error:
            raise RepositoryError(
                f"{self._store.url}: {key} is signed and missing",
                hint="a mirror may have been made without it; else tell its maintainers",
            ) from error
        if len(data) != info.length or sha256_bytes(data) != digest:
            raise TrustError(
                f"{self._store.url}: {key} is not what was signed: it was changed or cut short",
                hint="nothing of it was used; tell the repository's maintainers",
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, data)
        return data

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Has this process's turn at the folder: one that may not be written is copied first."""
        if self._copy is None and not _may_write(self._folder):
            self._copy = tempfile.TemporaryDirectory(prefix="zoo-trust-")
            if self._folder.is_dir():
                shutil.copytree(self._folder, self._copy.name, symlinks=True, dirs_exist_ok=True)
            self._folder = Path(self._copy.name)
        with turn(self._folder / "lock"):
            yield


def _may_write(folder: Path) -> bool:
    """Whether this user may write to a folder, or create it."""
    for part in (folder, folder / "metadata", folder / "verified"):
        while not part.exists() and part != part.parent:
            part = part.parent
        if not os.access(part, os.W_OK | os.X_OK):
            return False
    return True
