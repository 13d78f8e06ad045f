"""The files of TUF metadata: in the store, staged for a key rotation, and beside the keys."""

from __future__ import annotations

import json
from typing import Any

from tuf.api.metadata import Metadata

from builders.publish.keys import KeyRing
from zoo.schema.layout import METADATA
from zoo.stores import ObjectStore
from zoo.util.files import write_private

_LIMIT = 2**24
_JOURNAL = "rotation.json"
_SEEN = "seen.json"


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
        journal = {
            "keys": self._keys.file.model_dump_json(indent=1),
            "root": root.to_bytes().decode(),
            "files": {name: data.decode() for name, data in self._staged.items()},
        }
        write_private(self._keys.folder / _JOURNAL, json.dumps(journal).encode())
        self._staged = None
        self.complete()

    def complete(self) -> None:
        """Writes the files of a journal, if there is one."""
        path = self._keys.folder / _JOURNAL
        if not path.is_file():
            return
        journal = json.loads(path.read_bytes())
        self._keys.save(journal["keys"])
        for name, text in journal["files"].items():
            self._store.put(f"{METADATA}{name}", text.encode())
        write_private(self._keys.root_file, journal["root"].encode())
        path.unlink()

    def last_version(self) -> int:
        """Returns the version of the timestamp that these keys signed last, 0 if there is none."""
        return self._seen().get(self._store.url, 0)

    def remember_version(self, version: int) -> None:
        """Records the version of the timestamp that was signed."""
        seen = {**self._seen(), self._store.url: version}
        write_private(self._keys.folder / _SEEN, json.dumps(seen, indent=1).encode())

    def _seen(self) -> dict[str, int]:
        path = self._keys.folder / _SEEN
        return json.loads(path.read_bytes()) if path.is_file() else {}
