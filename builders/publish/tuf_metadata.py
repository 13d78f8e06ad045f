"""Signing: the TUF metadata of a repository, written in the order that keeps readers safe.

Root says who may sign what; targets hands the index over to hash bins; snapshot names the versions
of all of these; timestamp names the snapshot, and is written last: until then nobody sees anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from securesystemslib.exceptions import StorageError
from tuf.api.exceptions import DownloadError
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from builders.publish.keys import KeyEntry, KeyRing, Role
from zoo.schema.layout import METADATA, hashed_key
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import TrustError
from zoo.util.files import write_private

S = TypeVar("S", bound=Signed)
_LIMIT = 2**24
_PREFIX = "bin"
_JOURNAL = "rotation.json"


class SignedMetadata:
    """Reads what is signed, adds to it, signs again. One at a time: the caller holds the lock.

    Args:
        store: Where the repository lies.
        keys: What signs it.
        now: The clock.
    """

    def __init__(
        self,
        store: ObjectStore,
        keys: KeyRing,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._store = store
        self._keys = keys
        self._now = now
        self._root: Metadata[Root] | None = None
        self._targets: Metadata[Targets] | None = None
        self._snapshot: Metadata[Snapshot] | None = None
        self._timestamp: Metadata[Timestamp] | None = None
        self._bins: dict[str, Metadata[Targets]] = {}
        self._staged: dict[str, bytes] | None = None

    # Reading

    def load(self) -> bool:
        """Reads and verifies what is signed.

        Returns:
            Whether there is anything; False for a repository that nobody has signed yet.

        Raises:
            TrustError: It is not signed by these keys, or older than what they signed last.
        """
        url = self._store.url
        self._complete()
        if self._store.size(f"{METADATA}timestamp.json") is None:
            return False
        if not self._keys.root_file.is_file():
            raise TrustError(
                f"{url}: this repository is signed, and {self._keys.folder} has never signed one",
                hint="--keys names the folder of the keys that it is signed with",
            )
        try:
            self._load()
        except (TufError, DownloadError, StorageError, KeyError, ValueError) as error:
            raise TrustError(
                f"{url}: its metadata is not what the keys in {self._keys.folder} signed: {error}",
                hint="nothing was signed; was it changed, or are these the keys of another?",
            ) from error
        for role, names in _SIGNS.items():
            if self._keys.entry(role).keyid not in self.root.signed.roles[names[0]].keyids:
                raise TrustError(
                    f"{url}: the {role} key in {self._keys.folder} does not sign it any more",
                    hint="it was rotated: --keys names the folder of the keys that count now",
                )
        seen = self._seen().get(url, 0)
        if (version := self.timestamp.signed.version) < seen:
            raise TrustError(
                f"{url}: its index is version {version}, and version {seen} was signed here before",
                hint="somebody has put an older one back; nothing was signed",
            )
        return True

    def _load(self) -> None:
        root = Metadata[Root].from_bytes(self._keys.root_file.read_bytes())
        root.verify_delegate(Root.type, root)
        while (data := self._get(f"{root.signed.version + 1}.root.json")) is not None:
            following = Metadata[Root].from_bytes(data)
            root.verify_delegate(Root.type, following)
            following.verify_delegate(Root.type, following)
            root = following
        self._root = root
        timestamp = Metadata[Timestamp].from_bytes(self._need("timestamp.json"))
        root.verify_delegate(Timestamp.type, timestamp)
        meta = timestamp.signed.snapshot_meta
        data = self._need(f"{meta.version}.snapshot.json")
        meta.verify_length_and_hashes(data)
        snapshot = Metadata[Snapshot].from_bytes(data)
        root.verify_delegate(Snapshot.type, snapshot)
        self._timestamp, self._snapshot = timestamp, snapshot
        self._targets = self._delegated(Targets.type, root)

    def _delegated(self, role: str, delegator: Metadata[Any]) -> Metadata[Targets]:
        meta = self.snapshot.signed.meta[f"{role}.json"]
        data = self._need(f"{meta.version}.{role}.json")
        meta.verify_length_and_hashes(data)
        found = Metadata[Targets].from_bytes(data)
        delegator.verify_delegate(role, found)
        return found

    @property
    def root(self) -> Metadata[Root]:
        """Who may sign what."""
        assert self._root is not None
        return self._root

    @property
    def targets(self) -> Metadata[Targets]:
        """Who may sign the index."""
        assert self._targets is not None
        return self._targets

    @property
    def snapshot(self) -> Metadata[Snapshot]:
        """Versions of everything but root and timestamp."""
        assert self._snapshot is not None
        return self._snapshot

    @property
    def timestamp(self) -> Metadata[Timestamp]:
        """Which snapshot is the newest."""
        assert self._timestamp is not None
        return self._timestamp

    def read(self, path: str) -> bytes | None:
        """Returns a file of the index as it is signed, None when there is none.

        Raises:
            TrustError: It is signed and gone, or it was changed.
        """
        info = self._bin(self._bin_of(path)).signed.targets.get(path)
        if info is None:
            return None
        try:
            data = self._store.get(hashed_key(path, info.hashes["sha256"]), limit=info.length)
        except KeyError as error:
            raise TrustError(
                f"{self._store.url}: {path} is signed, and its file is gone: {error.args[0]}",
                hint="bring it back from a copy of the repository: nobody else can say what it was",
            ) from error
        if sha256_bytes(data) != info.hashes["sha256"]:
            raise TrustError(f"{self._store.url}: {path} is not what was signed: it was changed")
        return data

    # Writing

    def start(self) -> None:
        """Makes the first metadata: nothing is published yet."""
        root = Root(consistent_snapshot=True)
        for role, names in _SIGNS.items():
            for name in names:
                root.add_key(self._keys.entry(role).key, name)
        targets = Targets()
        publisher = self._keys.entry("publisher").key
        bits = self._keys.file.bins.bit_length() - 1
        bins = SuccinctRoles([publisher.keyid], 1, bits, _PREFIX)
        targets.delegations = Delegations({publisher.keyid: publisher}, succinct_roles=bins)
        self._root, self._targets = Metadata(root), Metadata(targets)
        self._snapshot = Metadata(Snapshot())
        self._timestamp = Metadata(Timestamp())
        self._bins = {name: Metadata(Targets()) for name in bins.get_roles()}
        self.snapshot.signed.meta.clear()
        expiry = self._keys.file.expiry
        self._sign(self.root, expiry.root, "root", first=True)
        self._put("1.root.json", self.root)
        self._sign(self.targets, expiry.targets, "targets", first=True)
        self._write_targets(Targets.type, self.targets)
        for name, one in self._bins.items():
            self._sign(one, expiry.index, "publisher", first=True)
            self._write_targets(name, one)
        write_private(self._keys.root_file, self.root.to_bytes())

    def publish(self, files: Mapping[str, bytes]) -> bool:
        """Signs files of the index: those given may be new, all others stay.

        Returns:
            Whether anything was new.
        """
        touched = set()
        for path, data in sorted(files.items()):
            name = self._bin_of(path)
            info = TargetFile.from_data(path, data, ["sha256"])
            targets = self._bin(name).signed.targets
            if targets.get(path) == info:
                continue
            self._store.put(hashed_key(path, info.hashes["sha256"]), data)
            targets[path] = info
            touched.add(name)
        for name in sorted(touched):
            self._sign(self._bins[name], self._keys.file.expiry.index, "publisher")
            self._write_targets(name, self._bins[name])
        if touched:
            self.finish()
        return bool(touched)

    def finish(self) -> None:
        """Signs snapshot and timestamp: from here on, everybody sees what was written."""
        expiry = self._keys.file.expiry
        first = not self.snapshot.signatures
        self._sign(self.snapshot, expiry.index, "publisher", first=first)
        data = self._put(f"{self.snapshot.signed.version}.snapshot.json", self.snapshot)
        self.timestamp.signed.snapshot_meta = MetaFile(
            self.snapshot.signed.version, len(data), {"sha256": sha256_bytes(data)}
        )
        self.refresh()

    def refresh(self) -> None:
        """Says again that there is nothing newer; signs anew what has less than half its time."""
        expiry, again = self._keys.file.expiry, False
        for name in self.snapshot.signed.meta if self.timestamp.signatures else ():
            role = name.removesuffix(".json")
            if role == Targets.type:
                continue  # its key may be in a safe; `keys rotate targets` signs it anew
            one = self._bin(role)
            if one.signed.expires - self._now() < timedelta(days=expiry.index) / 2:
                self._sign(one, expiry.index, "publisher")
                self._write_targets(role, one)
                again = True
        if again:
            self._sign(self.snapshot, expiry.index, "publisher")
            data = self._put(f"{self.snapshot.signed.version}.snapshot.json", self.snapshot)
            self.timestamp.signed.snapshot_meta = MetaFile(
                self.snapshot.signed.version, len(data), {"sha256": sha256_bytes(data)}
            )
        first = not self.timestamp.signatures
        self._sign(self.timestamp, expiry.timestamp, "publisher", first=first)
        self._put("timestamp.json", self.timestamp)
        seen = {**self._seen(), self._store.url: self.timestamp.signed.version}
        write_private(self._keys.folder / "seen.json", json.dumps(seen, indent=1).encode())

    def expiries(self) -> dict[Role, datetime]:
        """Returns until when the signatures that publishing does not renew are good."""
        return {"root": self.root.signed.expires, "targets": self.targets.signed.expires}

    def rotate(self, role: Role, entry: KeyEntry) -> None:
        """Gives a role another key; signatures of the one before count no more.

        All of it is signed and kept beside the keys before any of it is written to the store: a
        rotation that is interrupted is completed by whoever opens the metadata next.

        Args:
            role: Which.
            entry: The new key; the ring still has the old one.
        """
        root, expiry, self._staged = self.root.signed, self._keys.file.expiry, {}
        before = (self._keys.entry("root"), self._keys.entry(role))
        delegations = self.targets.signed.delegations
        assert delegations is not None
        assert delegations.succinct_roles is not None
        bins = [self._bin(name) for name in delegations.succinct_roles.get_roles()]
        for name in _SIGNS[role]:
            root.revoke_key(before[1].keyid, name)
            root.add_key(entry.key, name)
        root.version += 1
        root.expires = self._until(expiry.root)
        self._keys.replace(entry)
        self.root.signatures.clear()
        for own in {each.keyid: each for each in (before[0], self._keys.entry("root"))}.values():
            self.root.sign(self._keys.signer(own), append=True)
        self._put(f"{root.version}.root.json", self.root)
        if role == "publisher":
            delegations.keys = {entry.keyid: entry.key}
            delegations.succinct_roles.keyids = [entry.keyid]
            for name, one in zip(delegations.succinct_roles.get_roles(), bins, strict=True):
                self._sign(one, expiry.index, "publisher")
                self._write_targets(name, one)
        if role in ("targets", "publisher"):
            self._sign(self.targets, expiry.targets, "targets")
            self._write_targets(Targets.type, self.targets)
        self.finish()
        journal = {
            "keys": self._keys.file.model_dump_json(indent=1),
            "root": self.root.to_bytes().decode(),
            "files": {name: data.decode() for name, data in self._staged.items()},
        }
        write_private(self._keys.folder / _JOURNAL, json.dumps(journal).encode())
        self._staged = None
        self._complete()

    def _complete(self) -> None:
        """Writes what a rotation has signed."""
        path = self._keys.folder / _JOURNAL
        if not path.is_file():
            return
        journal = json.loads(path.read_bytes())
        self._keys.save(journal["keys"])
        for name, text in journal["files"].items():
            self._store.put(f"{METADATA}{name}", text.encode())
        write_private(self._keys.root_file, journal["root"].encode())
        path.unlink()

    def _bin_of(self, path: str) -> str:
        delegations = self.targets.signed.delegations
        assert delegations is not None
        return next(name for name, _ in delegations.get_roles_for_target(path))

    def _bin(self, name: str) -> Metadata[Targets]:
        if name not in self._bins:
            self._bins[name] = self._delegated(name, self.targets)
        return self._bins[name]

    def _write_targets(self, role: str, metadata: Metadata[Targets]) -> None:
        data = self._put(f"{metadata.signed.version}.{role}.json", metadata)
        self.snapshot.signed.meta[f"{role}.json"] = MetaFile(
            metadata.signed.version, len(data), {"sha256": sha256_bytes(data)}
        )

    def _sign(self, metadata: Metadata[Any], days: int, role: Role, *, first: bool = False) -> None:
        if not first:
            metadata.signed.version += 1
        metadata.signed.expires = self._until(days)
        metadata.sign(self._keys.signer(self._keys.entry(role)))

    def _until(self, days: int) -> datetime:
        return (self._now() + timedelta(days=days)).replace(microsecond=0)

    def _put(self, name: str, metadata: Metadata[Any]) -> bytes:
        data = metadata.to_bytes()
        if self._staged is None:
            self._store.put(f"{METADATA}{name}", data)
        else:
            self._staged[name] = data
        return data

    def _get(self, name: str) -> bytes | None:
        try:
            return self._store.get(f"{METADATA}{name}", limit=_LIMIT)
        except KeyError:
            return None

    def _need(self, name: str) -> bytes:
        if (data := self._get(name)) is None:
            raise ValueError(f"{METADATA}{name} is missing")
        return data

    def _seen(self) -> dict[str, int]:
        path = self._keys.folder / "seen.json"
        return json.loads(path.read_bytes()) if path.is_file() else {}


_SIGNS: dict[Role, tuple[str, ...]] = {
    "root": (Root.type,),
    "targets": (Targets.type,),
    "publisher": (Snapshot.type, Timestamp.type),
}
