"""What the names of a repository's attestations state, so that plans need not read each of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

from builders.history.listing import Listing
from zoo.schema.attestation_names import may_state_status, may_withdraw, read_name, shortened
from zoo.schema.layout import ATTESTATIONS
from zoo.schema.records import Status


@dataclass(frozen=True)
class NamedVerdict:
    """The last verdict on an engine on one architecture, from the names of its attestations.

    Attributes:
        engine: Digest of the engine.
        key: Start of the key of the verification that it passed; None if it was never run there.
    """

    engine: str
    key: str | None

    def is_of(self, key: str) -> bool:
        """Whether the engine passed the verification of this key."""
        return self.key == shortened(key)


class Attested:
    """What the names of a repository's attestations state.

    Args:
        listing: The repository's keys; attestations are listed on first use.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._once = threading.Lock()
        self._withdrawn: frozenset[str] | None = None
        self._engines: dict[str, set[str]] = {}

    def withdrawn(self) -> frozenset[str]:
        """Returns the digests of engines with an attestation that may withdraw them."""
        return self._read()[0]

    def engine(self, build: str) -> str | None:
        """Returns the digest of the engine of a build record; None if names do not tell.

        They do not if only an earlier version attested it, or if the record was lost once and the
        engine built again.
        """
        engines = self._read()[1].get(shortened(build), set())
        return next(iter(engines)) if len(engines) == 1 else None

    def verdict(self, build: str, arch: str) -> NamedVerdict | None:
        """Returns the last verdict on the engine of a build record; None if names do not tell.

        Args:
            build: The record's key.
            arch: ``cpu`` or ``sm86``; verdicts on other GPUs do not count.
        """
        if (engine := self.engine(build)) is None:
            return None
        last: str | None = None
        for key in sorted(self._listing.keys(ATTESTATIONS, f"{ATTESTATIONS}{engine}/")):
            if not may_state_status(key):
                continue
            stated = read_name(key)
            if stated is None or may_withdraw(key):  # why, and whether it still is: its body says
                return None
            if stated.status is Status.VERIFIED and arch in ("cpu", stated.arch):
                last = stated.key
        return NamedVerdict(engine, last)

    def _read(self) -> tuple[frozenset[str], dict[str, set[str]]]:
        with self._once:
            if self._withdrawn is None:
                engines, withdrawn = defaultdict[str, set[str]](set), set()
                for key in self._listing.all_keys(ATTESTATIONS):
                    engine = key.split("/")[1]
                    if may_withdraw(key):
                        withdrawn.add(engine)
                    if stated := read_name(key):
                        engines[stated.build].add(engine)
                self._engines, self._withdrawn = dict(engines), frozenset(withdrawn)
            return self._withdrawn, self._engines
