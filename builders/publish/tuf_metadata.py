"""Signs the TUF metadata of a repository, in an order that never shows readers a partial state.

Root defines which keys sign which role; targets delegates the index to hash bins; snapshot lists
their versions; timestamp names the snapshot and is written last, which publishes everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from securesystemslib.exceptions import StorageError
from tuf.api.exceptions import DownloadError
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import (
    Metadata,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from builders.publish.keys import KeyEntry, KeyRing, Role
from builders.publish.signing_limits import (
    check_clock,
    note_time,
    utc_now,
)
from builders.publish.tuf_files import MetadataFiles
from builders.publish.tuf_roles import SIGNS, Roles, first_roles, load_roles
from builders.publish.tuf_signer import RoleSigner
from zoo.schema.layout import hashed_key
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import TrustError
from zoo.util.files import write_private


class SignedMetadata:
    """Reads, extends and re-signs the signed index. The caller holds the store's lock.

    Args:
        store: Store of the repository.
        keys: The keys that sign it.
        now: Returns the time.
    """

    def __init__(
        self, store: ObjectStore, keys: KeyRing, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._store = store
        self._keys = keys
        self._now = now
        self._files = MetadataFiles(store, keys)
        self._loaded: RoleSigner | None = None

    @property
    def _signer(self) -> RoleSigner:
        assert self._loaded is not None
        return self._loaded

    @property
    def _roles(self) -> Roles:
        return self._signer.roles

    @property
    def root(self) -> Metadata[Root]:
        """Which keys sign which role."""
        return self._roles.root

    @property
    def targets(self) -> Metadata[Targets]:
        """Which key signs the index."""
        return self._roles.targets

    @property
    def snapshot(self) -> Metadata[Snapshot]:
        """Versions of all roles except root and timestamp."""
        return self._roles.snapshot

    @property
    def timestamp(self) -> Metadata[Timestamp]:
        """Version of the newest snapshot."""
        return self._roles.timestamp

    # Reading

    def load(self) -> bool:
        """Loads and verifies the signed metadata; False if the repository is not signed yet.

        Raises:
            TrustError: It is not signed by these keys, or is older than what they signed last.
        """
        url = self._store.url
        self._files.complete()
        self._keys.read_again()  # a rotation may have ended while this process waited its turn
        if not self._files.exist():
            return False
        self._files.require_root()
        try:
            roles = load_roles(self._files, self._keys)
        except (TufError, DownloadError, StorageError, KeyError, ValueError) as error:
            raise TrustError(
                f"{url}: its metadata is not what the keys in {self._keys.folder} signed: {error}",
                hint="nothing was signed: it was changed, or these keys are of another repository",
            ) from error
        self._loaded = RoleSigner(roles, self._files, self._keys, self._now)
        _check_current(url, self._keys, self.root.signed)
        self._files.check_version(self.timestamp.signed.version)
        check_clock(self._store, self.timestamp, self._keys.file.expiry, self._now)
        return True

    def read(self, path: str) -> bytes | None:
        """Returns a file of the index, verified; None if it has not been signed.

        Raises:
            TrustError: It was signed, but is missing or was changed.
        """
        info = self._roles.bin(self._roles.bin_of(path)).signed.targets.get(path)
        if info is None:
            return None
        try:
            digest = info.hashes["sha256"]
        except KeyError as error:
            raise TrustError(
                f"{self._store.url}: {path} is signed without a SHA-256",
                hint="it was signed with another program; files are stored by their SHA-256",
            ) from error
        try:
            data = self._store.get(hashed_key(path, digest), limit=info.length)
        except KeyError as error:
            raise TrustError(
                f"{self._store.url}: {path} is signed, but its file is missing: {error.args[0]}",
                hint="restore it from a copy of the repository",
            ) from error
        if sha256_bytes(data) != digest:
            raise TrustError(f"{self._store.url}: {path} was changed after it was signed")
        return data

    def expiries(self) -> dict[Role, datetime]:
        """Returns the expiry of the signatures that publishing does not renew."""
        return {"root": self.root.signed.expires, "targets": self.targets.signed.expires}

    # Writing

    def start(self) -> None:
        """Writes the first metadata of a repository; :meth:`finish` makes it visible.

        Raises:
            TrustError: The keys sign another repository.
        """
        self._files.check_new()
        roles = first_roles(self._files, self._keys)
        self._loaded = RoleSigner(roles, self._files, self._keys, self._now)
        self._loaded.sign_first()
        with self._keys.turn():
            write_private(self._keys.root_file, self.root.to_bytes())

    def publish(self, files: Mapping[str, bytes]) -> bool:
        """Signs new and changed files of the index.

        Returns:
            Whether anything was signed.
        """
        changed = set()
        for path, data in sorted(files.items()):
            name = self._roles.bin_of(path)
            info = TargetFile.from_data(path, data, ["sha256"])
            targets = self._roles.bin(name).signed.targets
            if targets.get(path) == info:
                continue
            self._store.put(hashed_key(path, info.hashes["sha256"]), data)
            targets[path] = info
            changed.add(name)
        for name in sorted(changed):
            self._signer.sign_bin(name)
        if changed:
            self.finish()
        return bool(changed)

    def finish(self) -> None:
        """Signs snapshot and timestamp, which makes everything written so far visible."""
        self._signer.sign_snapshot()
        self.refresh()

    def refresh(self) -> None:
        """Re-signs the timestamp, and the bins past half of their lifetime."""
        expiry, renewed = self._keys.file.expiry, False
        for name in self.snapshot.signed.meta if self.timestamp.signatures else ():
            role = name.removesuffix(".json")
            if role == Targets.type:
                continue  # its key may be offline; `keys rotate targets` re-signs it
            remaining = self._roles.bin(role).signed.expires - self._now()
            if remaining < timedelta(days=expiry.index) / 2:
                self._signer.sign_bin(role)
                renewed = True
        if renewed:
            self._signer.sign_snapshot()
        note_time(self.timestamp, self._now())
        self._signer.sign_timestamp(self._store.url)
        self._files.remember_version(self.timestamp.signed.version)

    def sign_targets(self) -> None:
        """Signs the targets role, whose list of builders changed."""
        self._signer.sign_targets()
        self.finish()

    def rotate(self, role: Role, entry: KeyEntry) -> None:
        """Replaces a role's key; signatures of the old key are no longer valid.

        All files are signed and stored beside the keys before any is written to the store, so an
        interrupted one is completed later. The old key signs as well, and the root is last.

        Args:
            role: The role.
            entry: The new key; the key ring still has the old one.
        """
        before = {role: self._keys.entry(role), "root": self._keys.entry("root")}
        bins = list(self._roles.succinct.get_roles())
        for name in bins:
            self._roles.bin(name)  # loaded and verified before anything changes
        self._files.stage()
        for name in SIGNS[role]:
            self.root.signed.revoke_key(before[role].keyid, name)
            self.root.signed.add_key(entry.key, name)
        self._keys.replace(entry)
        self._signer.before = {role: before[role]} if before[role].keyid != entry.keyid else {}
        if role == "publisher":
            self._roles.delegations.keys = {entry.keyid: entry.key}
            self._roles.succinct.keyids = [entry.keyid]
            for name in bins:
                self._signer.sign_bin(name)
        if role in ("targets", "publisher"):
            self._signer.sign_targets()
        self.finish()
        self._signer.before = {}
        self._signer.sign_root(before["root"])
        self._files.commit(self.root)


def _check_current(url: str, keys: KeyRing, root: Root) -> None:
    """Checks that the root names each role's key.

    Raises:
        TrustError: A key was rotated.
    """
    for role, names in SIGNS.items():
        if keys.entry(role).keyid not in root.roles[names[0]].keyids:
            raise TrustError(
                f"{url}: the {role} key in {keys.folder} no longer signs it",
                hint="it was rotated: name the folder of the current keys with --keys",
            )
