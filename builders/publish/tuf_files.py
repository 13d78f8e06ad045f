"""The files of TUF metadata: in the store, staged for a key rotation, and beside the keys."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from tuf.api.metadata import Metadata, Root, Timestamp

from builders.publish.journal import (
    LARGEST_METADATA,
    TIMESTAMP,
    Journal,
    parsed,
    read_journal,
    reason,
)
from builders.publish.keys import KeyRing
from zoo.schema.layout import METADATA
from zoo.stores import ObjectStore
from zoo.util.errors import TrustError
from zoo.util.files import write_private
from zoo.util.loading import parse_json, read_regular

_JOURNAL = "rotation.json"
_SEEN = "seen.json"
_VERSIONS = TypeAdapter(dict[str, int], config=ConfigDict(strict=True))
"""Version of the timestamp that was signed last, by URL."""


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
            return self._store.get(f"{METADATA}{name}", limit=LARGEST_METADATA)
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
        journal = Journal(
            store=self._store.url,
            keys=self._keys.file.model_dump_json(indent=1),
            root=root.to_bytes().decode(),
            files={name: data.decode() for name, data in self._staged.items()},
        )
        with self._keys.turn():
            write_private(self._keys.folder / _JOURNAL, journal.to_bytes())
        self._staged = None
        self.complete()

    def complete(self) -> None:
        """Writes the files of a journal, if there is one.

        Raises:
            TrustError: The journal is damaged or of another repository, or the repository was
                published to since it was written; nothing is written then.
        """
        path = self._keys.folder / _JOURNAL
        with self._keys.turn():
            if not path.is_file():
                return
            journal = read_journal(path)
            self._check_current(journal)
            self._keys.save(journal.keys)
            for name, text in journal.files.items():
                self._store.put(f"{METADATA}{name}", text.encode())
            self._remember(journal.version)
            write_private(self._keys.root_file, journal.root.encode())
            path.unlink()

    def _check_current(self, journal: Journal) -> None:
        path = self._keys.folder / _JOURNAL
        if not self.is_bound():
            raise TrustError(
                f"{path}: a key rotation of {journal.store or 'another repository'} was "
                f"interrupted, and {self._store.url} is not that repository",
                hint="nothing was written; complete the rotation first: zoo-farm publish --refresh "
                f"--keys {self._keys.folder} --store with its URL (if it no longer exists, delete "
                f"{path.name})",
            )
        now = self.get(TIMESTAMP)
        if now is None or now.decode(errors="replace") == journal.files[TIMESTAMP]:
            return
        try:
            version = parsed(now, Timestamp).version
        except ValueError as error:
            raise TrustError(
                f"{self._store.url}: {METADATA}{TIMESTAMP} is damaged: {reason(error)}",
                hint="nothing was written; restore it from a copy of the repository",
            ) from error
        if version >= journal.version:
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
        try:
            version = parsed(known, Root).version
        except ValueError as error:
            raise TrustError(
                f"{self._keys.root_file}: the root of these keys is damaged: {reason(error)}",
                hint="restore it from a copy of the folder of keys, or copy the newest root from "
                "the repository's metadata/ if you trust it",
            ) from error
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
        try:
            return _VERSIONS.validate_python(parse_json(read_regular(path)))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise TrustError(
                f"{path}: the list of what these keys signed is damaged: {reason(error)}",
                hint="restore it from a copy of the folder of keys; without it a store that was "
                "rolled back can't be detected",
            ) from error
