"""The TUF roles of a repository: loaded and verified, or created for its first signature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tuf.api.metadata import (
    Delegations,
    Metadata,
    Root,
    Snapshot,
    SuccinctRoles,
    Targets,
    Timestamp,
)

from builders.publish.keys import KeyRing, Role
from builders.publish.registered import read_file, write_builders
from builders.publish.tuf_files import MetadataFiles

_PREFIX = "bin"

SIGNS: dict[Role, tuple[str, ...]] = {
    "root": (Root.type,),
    "targets": (Targets.type,),
    "publisher": (Snapshot.type, Timestamp.type),
}
"""Top-level TUF roles that each of our keys signs; the publisher key also signs hash bins."""


@dataclass(kw_only=True)
class Roles:
    """Metadata of every role; hash bins are loaded on first use.

    Attributes:
        files: Reads the metadata files.
        root: Which keys sign which role.
        targets: Which key signs the hash bins.
        snapshot: Versions of all roles except root and timestamp.
        timestamp: Version of the newest snapshot.
        bins: The hash bins loaded so far, by name.
    """

    files: MetadataFiles
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    bins: dict[str, Metadata[Targets]] = field(default_factory=dict)

    @property
    def delegations(self) -> Delegations:
        """Delegations of the targets role to the hash bins."""
        assert self.targets.signed.delegations is not None
        return self.targets.signed.delegations

    @property
    def succinct(self) -> SuccinctRoles:
        """The roles of the hash bins."""
        assert self.delegations.succinct_roles is not None
        return self.delegations.succinct_roles

    def bin_of(self, path: str) -> str:
        """Returns the name of the hash bin that a file of the index belongs to."""
        return next(name for name, _ in self.delegations.get_roles_for_target(path))

    def bin(self, name: str) -> Metadata[Targets]:
        """Returns a hash bin, verified."""
        if name not in self.bins:
            self.bins[name] = _delegated(name, self.targets, self.snapshot, self.files)
        return self.bins[name]


def load_roles(files: MetadataFiles, keys: KeyRing) -> Roles:
    """Loads and verifies root, timestamp, snapshot and targets, starting from the trusted root."""
    known = keys.root_file.read_bytes()
    root = Metadata[Root].from_bytes(known)
    root.verify_delegate(Root.type, root)
    if files.get(name := f"{root.signed.version}.root.json") not in (None, known):
        raise ValueError(f"{name} is the root of another repository")
    while (data := files.get(f"{root.signed.version + 1}.root.json")) is not None:
        following = Metadata[Root].from_bytes(data)
        root.verify_delegate(Root.type, following)
        following.verify_delegate(Root.type, following)
        root = following
    timestamp = Metadata[Timestamp].from_bytes(files.require("timestamp.json"))
    root.verify_delegate(Timestamp.type, timestamp)
    meta = timestamp.signed.snapshot_meta
    data = files.require(f"{meta.version}.snapshot.json")
    meta.verify_length_and_hashes(data)
    snapshot = Metadata[Snapshot].from_bytes(data)
    root.verify_delegate(Snapshot.type, snapshot)
    targets = _delegated(Targets.type, root, snapshot, files)
    return Roles(files=files, root=root, targets=targets, snapshot=snapshot, timestamp=timestamp)


def first_roles(files: MetadataFiles, keys: KeyRing) -> Roles:
    """Returns the unsigned metadata of a repository that has nothing published."""
    root = Root(consistent_snapshot=True)
    for role, names in SIGNS.items():
        for name in names:
            root.add_key(keys.entry(role).key, name)
    targets = Targets()
    publisher = keys.entry("publisher").key
    bits = keys.file.bins.bit_length() - 1
    bins = SuccinctRoles([publisher.keyid], 1, bits, _PREFIX)
    if keys.builders_file.is_file():
        write_builders(targets, read_file(keys.builders_file))
    targets.delegations = Delegations({publisher.keyid: publisher}, succinct_roles=bins)
    snapshot = Snapshot()
    snapshot.meta.clear()
    return Roles(
        files=files,
        root=Metadata(root),
        targets=Metadata(targets),
        snapshot=Metadata(snapshot),
        timestamp=Metadata(Timestamp()),
        bins={name: Metadata(Targets()) for name in bins.get_roles()},
    )


def _delegated(
    role: str, delegator: Metadata[Any], snapshot: Metadata[Snapshot], files: MetadataFiles
) -> Metadata[Targets]:
    meta = snapshot.signed.meta[f"{role}.json"]
    data = files.require(f"{meta.version}.{role}.json")
    meta.verify_length_and_hashes(data)
    metadata = Metadata[Targets].from_bytes(data)
    delegator.verify_delegate(role, metadata)
    return metadata
