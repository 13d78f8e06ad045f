"""Signs the metadata of TUF's roles and writes it under the names of its versions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets

from builders.publish.keys import KeyEntry, KeyRing, Role
from builders.publish.signing_limits import check_length, sign_as_before
from builders.publish.tuf_files import MetadataFiles
from builders.publish.tuf_roles import Roles
from zoo.util.digest import sha256_bytes


class RoleSigner:
    """Signs the next version of each role. In which order is up to the caller.

    Args:
        roles: The loaded metadata; versions and expiries in it change.
        files: Where signed metadata is written.
        keys: The keys.
        now: Returns the time.

    Attributes:
        roles: The metadata.
        before: The key that a rotation replaces, by its role: it signs as well.
    """

    def __init__(
        self, roles: Roles, files: MetadataFiles, keys: KeyRing, now: Callable[[], datetime]
    ) -> None:
        self.roles = roles
        self.before: dict[Role, KeyEntry] = {}
        self._files, self._keys, self._now = files, keys, now

    def sign_first(self) -> None:
        """Signs the first version of root, targets and the bins."""
        roles, expiry = self.roles, self._keys.file.expiry
        self._sign(roles.root, expiry.root, "root", first=True)
        self._files.put("1.root.json", roles.root)
        self._sign(roles.targets, expiry.targets, "targets", first=True)
        self._write(Targets.type, roles.targets)
        for name, metadata in roles.bins.items():
            self._sign(metadata, expiry.index, "publisher", first=True)
            self._write(name, metadata)

    def sign_root(self, before: KeyEntry) -> None:
        """Signs root with the root key, and with the previous one if it changed."""
        root = self.roles.root.signed
        root.version += 1
        root.expires = self._until(self._keys.file.expiry.root)
        self.roles.root.signatures.clear()
        for key in {entry.keyid: entry for entry in (before, self._keys.entry("root"))}.values():
            self.roles.root.sign(self._keys.signer(key), append=True)
        self._files.put(f"{root.version}.root.json", self.roles.root)

    def sign_targets(self) -> None:
        """Signs targets, which names the key of the bins."""
        self._sign(self.roles.targets, self._keys.file.expiry.targets, "targets")
        self._write(Targets.type, self.roles.targets)

    def sign_bin(self, name: str) -> None:
        """Signs a bin of the index."""
        metadata = self.roles.bin(name)
        self._sign(metadata, self._keys.file.expiry.index, "publisher")
        self._write(name, metadata)

    def sign_snapshot(self) -> None:
        """Signs the snapshot, which states the versions written so far."""
        snapshot = self.roles.snapshot
        first = not snapshot.signatures
        self._sign(snapshot, self._keys.file.expiry.index, "publisher", first=first)
        name = f"{snapshot.signed.version}.snapshot.json"
        self.roles.timestamp.signed.snapshot_meta = self._put(name, snapshot)

    def sign_timestamp(self, url: str) -> None:
        """Signs the timestamp, which readers follow.

        Args:
            url: The repository's, for an error.

        Raises:
            TrustError: It is longer than readers accept.
        """
        timestamp = self.roles.timestamp
        first = not timestamp.signatures
        self._sign(timestamp, self._keys.file.expiry.timestamp, "publisher", first=first)
        check_length(url, timestamp)
        self._files.put("timestamp.json", timestamp)

    def _write(self, role: str, metadata: Metadata[Targets]) -> None:
        name = f"{metadata.signed.version}.{role}.json"
        self.roles.snapshot.signed.meta[f"{role}.json"] = self._put(name, metadata)

    def _put(self, name: str, metadata: Metadata[Snapshot] | Metadata[Targets]) -> MetaFile:
        data = self._files.put(name, metadata)
        return MetaFile(metadata.signed.version, len(data), {"sha256": sha256_bytes(data)})

    def _sign(self, metadata: Metadata[Any], days: int, role: Role, *, first: bool = False) -> None:
        if not first:
            metadata.signed.version += 1
        metadata.signed.expires = self._until(days)
        metadata.sign(self._keys.signer(self._keys.entry(role)))
        if role in self.before:
            sign_as_before(metadata, self._keys, self.before[role])

    def _until(self, days: int) -> datetime:
        return (self._now() + timedelta(days=days)).replace(microsecond=0)
