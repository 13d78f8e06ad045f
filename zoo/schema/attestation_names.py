"""The names of attestations, which say so much that planning need not read them.

An attestation about a known build is stored as
``<time>-<arch>-<key>-<build>-<kind>-<digest>.json``, with the first 32 digits of the key of its
inputs and of the build record. Others, and all of earlier versions, are stored as
``<time>-<kind>-<digest>.json``. Both sort by time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.schema.closed import Unknown, read_member
from zoo.schema.records import Attestation, AttestationKind, Status
from zoo.schema.status import gpu_arch, status_stated

_DIGITS = 32  # of a key: 128 bits, as names are limited to 255 bytes
_STATED = re.compile(
    r"[^/]+Z-(?P<arch>cpu|sm\d+)-(?P<key>[0-9a-f]{32})-(?P<build>[0-9a-f]{32})"
    r"-(?P<kind>[a-z]+)-[0-9a-f]{16}\.json"
)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the name of an attestation states.

    Attributes:
        arch: Architecture of the machine's GPU; ``cpu`` if it has none.
        key: Start of the key of the result's inputs.
        build: Start of the key of the engine's build record.
        status: The status that it gives the engine; None if it gives none.
    """

    arch: str
    key: str
    build: str
    status: Status | None


def shortened(key: str) -> str:
    """Returns as much of a key as names contain."""
    return key[:_DIGITS]


def name_of(attestation: Attestation, build: str | None) -> str:
    """Returns the file name of an attestation.

    Args:
        attestation: The attestation.
        build: Key of the engine's build record; None if whoever attests does not know it.
    """
    if build is None:
        return attestation.name
    gpu = gpu_arch(attestation.machine)
    arch = gpu if gpu != "sm" else "cpu"
    time, keys = attestation.time.replace(":", ""), f"{attestation.key[:_DIGITS]}-{build[:_DIGITS]}"
    return f"{time}-{arch}-{keys}-{attestation.kind}-{attestation.digest[:16]}.json"


def read_name(key: str) -> Stated | None:
    """Returns what the name of an attestation states; None if the name has another form.

    Args:
        key: The attestation's key, which ends in its name.
    """
    if (match := _STATED.fullmatch(key.rpartition("/")[2])) is None:
        return None
    status = status_stated(read_member(AttestationKind, match["kind"]))
    return Stated(arch=match["arch"], key=match["key"], build=match["build"], status=status)


def may_withdraw(key: str) -> bool:
    """Whether an attestation may withdraw an engine, by its key, which ends in its name."""
    kind = _kind_in(key)
    return kind is None or isinstance(kind, Unknown) or status_stated(kind) is Status.WITHDRAWN


def may_state_status(key: str) -> bool:
    """Whether an attestation may give an engine a status, by its key, which ends in its name."""
    kind = _kind_in(key)
    return kind is None or isinstance(kind, Unknown) or status_stated(kind) is not None


def _kind_in(key: str) -> AttestationKind | Unknown | None:
    """Returns the kind in an attestation's name; None if the name does not say it."""
    stated = key.rpartition("/")[2].rsplit("-", 2)[1:2]
    return read_member(AttestationKind, stated[0]) if stated else None
