"""The builders that a repository registers, in the metadata of the targets role.

Clients that know nothing of builders keep the field and ignore it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

from builders.publish.builder_list import BUILDERS, Builders
from zoo.schema.layout import METADATA, TIMESTAMP
from zoo.stores import ObjectStore
from zoo.util.errors import TrustError
from zoo.util.loading import read_regular

FIELD = "builders"
"""Name of the field."""

_LIMIT = 2**24  # bytes of a file of metadata


def read_builders(targets: Targets) -> Builders | None:
    """Returns the builders that a repository registers; None if it is from before there were any.

    Raises:
        TrustError: The list is malformed.
    """
    stated = targets.unrecognized_fields.get(FIELD)
    if stated is None:
        return None
    try:
        return BUILDERS.validate_python(stated)
    except ValidationError as error:
        raise TrustError(
            f"the signed list of builders can't be read: {error}",
            hint="perhaps a later version wrote it: update this one",
        ) from error


def write_builders(targets: Targets, builders: Builders) -> None:
    """Registers these builders and no others."""
    targets.unrecognized_fields[FIELD] = BUILDERS.dump_python(builders, mode="json")


def read_file(path: Path) -> Builders:
    """Returns the builders that a file beside the keys lists.

    Raises:
        TrustError: It is malformed.
    """
    try:
        return BUILDERS.validate_json(read_regular(path, _LIMIT))
    except (OSError, ValidationError) as error:
        raise TrustError(f"{path}: not a list of builders: {error}") from error


def stated_builders(store: ObjectStore) -> Builders | None:
    """Returns the builders that a signed repository registers, without verifying the signatures.

    That is enough for a builder, which only wants to know before hours of work whether its
    attestations will count.

    Raises:
        TrustError: The metadata can't be read.
    """
    try:
        timestamp = Metadata[Timestamp].from_bytes(store.get(TIMESTAMP, limit=_LIMIT))
        name = f"{METADATA}{timestamp.signed.snapshot_meta.version}.snapshot.json"
        snapshot = Metadata[Snapshot].from_bytes(store.get(name, limit=_LIMIT))
        name = f"{METADATA}{snapshot.signed.meta['targets.json'].version}.targets.json"
        targets = Metadata[Targets].from_bytes(store.get(name, limit=_LIMIT))
    except (TufError, KeyError, ValueError) as error:
        raise TrustError(f"{store.url}: its list of builders can't be read: {error}") from error
    return read_builders(targets.signed)
