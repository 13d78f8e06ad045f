"""The files of TUF metadata: in the store, staged for a key rotation, and beside the keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

from tuf.api.metadata import Metadata, Root, Timestamp

from builders.publish.keys import KeyRing
from zoo.schema.layout import METADATA
from zoo.stores import ObjectStore
from zoo.util.errors import TrustError
from zoo.util.files import write_private

_LIMIT = 2**24
_TIMESTAMP = "timestamp.json"
_JOURNAL = "rotation.json"
_SEEN = "seen.json"


class _Place(TypedDict, total=False):
    store: str  # version 0.1 did not write it


class _Journal(_Place):
    """The files that an interrupted rotation has not written yet."""

    keys: str
    root: str
    files: dict[str, str]


class MetadataFiles:
    """Reads and writes the metadata files of a repository.

    Args:
        store: Store of the repository.
        keys: The keys that sign it. Their folder also holds the journal of a key rotation, and the
            last signed version of each repository.
    """

    def __init__(self, store: ObjectStore, keys: KeyRing) -> None:
        self._store = store
        self._keys = keys
        self._staged: dict[str, bytes] | None = None

    def exist(self) -> bool:
        """Whether the repository has been signed."""
        return self._store.size(f"{METADATA}timestamp.json") is not None

    def get(self, name: str) -> bytes | None:
        """Returns a metadata file, None if it does not exist."""
        try:
            return self._store.get(f"{METADATA}{name}", limit=_LIMIT)
        except KeyError:
            return None

    def require(self, name: str) -> bytes:
        """Returns a metadata file.

        Raises:
            ValueError: It does not exist.
        """
        if (data := self.get(name)) is None:
            raise ValueError(f"{METADATA}{name} is missing")
        return data

    def put(self, name: str, metadata: Metadata[Any]) -> bytes:
        """Writes or stages a metadata file; returns its bytes."""
        data = metadata.to_bytes()
        if self._staged is None:
            self._store.put(f"{METADATA}{name}", data)
        else:
            self._staged[name] = data
        return data

    def stage(self) -> None:
        """Stages everything that is put from now on, until :meth:`commit`."""
        self._staged = {}

    def commit(self, root: Metadata[Any]) -> None:
        """Writes the staged files, the keys and the root.

        The journal is written first: if this process is killed, the next one that opens the
        metadata writes the remaining files from it.
        """
        assert self._staged is not None
        journal: _Journal = {
            "store": self._store.url,
            "keys": self._keys.file.model_dump_json(indent=1),
            "root": root.to_bytes().decode(),
            "files": {name: data.decode() for name, data in self._staged.items()},
        }
        with self._keys.turn():
            write_private(self._keys.folder / _JOURNAL, json.dumps(journal).encode())
        self._staged = None
        self.complete()

    def complete(self) -> None:
        """Writes the files of a journal, if there is one.

        Raises:
            TrustError: The journal is of another repository, or the repository was published to
                since the journal was written; nothing is written then.
        """
        path = self._keys.folder / _JOURNAL
        with self._keys.turn():
            if not path.is_file():
                return
            journal: _Journal = json.loads(path.read_bytes())
            self._check_journal(path, journal)
            self._keys.save(journal["keys"])
            for name, text in journal["files"].items():
                self._store.put(f"{METADATA}{name}", text.encode())
            self._remember(_version_in(journal))
            write_private(self._keys.root_file, journal["root"].encode())
            path.unlink()

    def _check_journal(self, path: Path, journal: _Journal) -> None:
        if not self.is_bound():
            raise TrustError(
                f"{path}: a key rotation of {journal.get('store', 'another repository')} was "
                f"interrupted, and {self._store.url} is not that repository",
                hint="nothing was written; complete the rotation first: zoo-farm publish --refresh "
                f"--keys {self._keys.folder} --store with its URL (if it no longer exists, delete "
                f"{path.name})",
            )
        now = self.get(_TIMESTAMP)
        if now is None or now.decode(errors="replace") == journal["files"][_TIMESTAMP]:
            return
        if Metadata[Timestamp].from_bytes(now).signed.version >= _version_in(journal):
            raise TrustError(
                f"{path}: this key rotation was interrupted, and {self._store.url} was published "
                "from elsewhere since",
                hint=f"nothing was written; delete {path}, then rotate the key again",
            )

    def is_bound(self) -> bool:
        """Whether the store holds the root that lies beside the keys: both are of one repository.

        :meth:`commit` and :meth:`complete` replace that root last.
        """
        try:
            known = self._keys.root_file.read_bytes()
        except FileNotFoundError:
            return False
        version = Metadata[Root].from_bytes(known).signed.version
        return self.get(f"{version}.root.json") == known

    def require_root(self) -> None:
        """Checks that these keys have signed a repository.

        Raises:
            TrustError: They have not.
        """
        if not self._keys.root_file.is_file():
            raise TrustError(
                f"{self._store.url}: this repository is signed, and {self._keys.folder} has never "
                "signed one",
                hint="name the folder of its keys with --keys",
            )

    def check_version(self, version: int) -> None:
        """Checks that the timestamp in the store is not older than what these keys signed last.

        Raises:
            TrustError: It is older.
        """
        if version < (last := self.last_version()):
            raise TrustError(
                f"{self._store.url}: its index is version {version}, but these keys have signed "
                f"version {last}",
                hint="nothing was signed: an older version of the index has been restored",
            )

    def check_new(self) -> None:
        """Checks that these keys may sign a new repository in this store.

        Raises:
            TrustError: They sign another repository.
        """
        signed = self._seen()
        if self._keys.root_file.is_file() and signed and self._store.url not in signed:
            raise TrustError(
                f"the keys in {self._keys.folder} sign another repository: {', '.join(signed)}",
                hint=f"{self._store.url} is new and needs its own keys: zoo-farm keys init --keys "
                "with another folder",
            )

    def last_version(self) -> int:
        """Returns the version of the timestamp that these keys signed last, 0 if there is none."""
        return self._seen().get(self._store.url, 0)

    def remember_version(self, version: int) -> None:
        """Records the version of a timestamp that was written; a staged one is not yet."""
        if self._staged is None:
            with self._keys.turn():
                self._remember(version)

    def _remember(self, version: int) -> None:
        seen = {**self._seen(), self._store.url: version}
        write_private(self._keys.folder / _SEEN, json.dumps(seen, indent=1).encode())

    def _seen(self) -> dict[str, int]:
        path = self._keys.folder / _SEEN
        return json.loads(path.read_bytes()) if path.is_file() else {}


def _version_in(journal: _Journal) -> int:
    return Metadata[Timestamp].from_bytes(journal["files"][_TIMESTAMP].encode()).signed.version
