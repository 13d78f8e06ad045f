"""A repository's contents for one model, read when a decision needs them; nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from builders.history.attested import NamedVerdict
from builders.history.failures import Failed, Failures
from zoo.repository.repository import Repository
from zoo.schema.floors import Tolerance
from zoo.schema.index import OutdoneEngine
from zoo.schema.keys import BuildInputs
from zoo.schema.layout import ATTESTATIONS, failed_export_key, record_key
from zoo.schema.old_failures import disabled_key
from zoo.schema.published import AnyEngine, AnyModel
from zoo.schema.records import Attestation, BuildRecord, ExportRecord, FailureRecord, Status
from zoo.schema.targets import cell_of

_RECORDS = "records/"


class RepositoryKnown:
    """A repository's contents for one model.

    Args:
        repository: The repository.
        model: The model.
        index: The model's index; None if there is none.
        failures: The repository's failures and listings, shared by the models of a run.
        looks_at_blobs: Whether to check that records and blobs exist. A run does, because it uses
            them; a plan trusts the index.
    """

    def __init__(
        self,
        repository: Repository,
        model: str,
        index: AnyModel | None,
        failures: Failures,
        *,
        looks_at_blobs: bool = False,
    ) -> None:
        self._repository, self._model, self._failures = repository, model, failures
        self._looks = looks_at_blobs
        self._entries: dict[str, list[AnyEngine]] = {}
        self._outdone: dict[str, list[OutdoneEngine]] = {}
        self._listed: set[str] = set()
        self._published: dict[str, AnyEngine] = {}
        for entry in index.engines if index else ():
            self._entries.setdefault(entry.record, []).append(entry)
            self._listed.add(entry.engine.sha256)
            if entry.superseded is None:
                self._published |= {cell_of(label): entry for label in entry.targets}
        for engine in index.outdone if index else ():
            self._outdone.setdefault(engine.record, []).append(engine)
        self._exports: dict[str, ExportRecord | FailureRecord | None] = {}
        self._records: dict[str, BuildRecord] = {}
        self._attestations: dict[str, list[Attestation]] = {}
        self._new: set[str] = set()
        self.exports_read: list[ExportRecord] = []

    def entries(self, key: str) -> Sequence[AnyEngine]:
        """Returns the index entries of a build record, superseded or not."""
        return self._entries.get(key, ())

    def outdone(self, key: str) -> Sequence[OutdoneEngine]:
        """Returns what the index says of an engine that did not replace the published one."""
        return self._outdone.get(key, ())

    def published(self, label: str) -> AnyEngine | None:
        """Returns the current entry of a target, whether its engine is mixed or not."""
        return self._published.get(label)

    def given_out(self) -> Collection[str]:
        """Returns the digests of all listed engines that are not withdrawn."""
        listed = chain.from_iterable(self._entries.values())
        return {one.engine.sha256 for one in listed if one.status is not Status.WITHDRAWN}

    def sharing(self) -> Mapping[str, int]:
        """Returns how many engines of other models are given out and are the bytes of one of these.

        Only asked before a withdrawal: it reads the index of every model.
        """
        own = self.given_out()
        shared = {
            index.model: sum(
                entry.engine.sha256 in own and entry.status is not Status.WITHDRAWN
                for entry in index.engines
            )
            for index in (self._repository.model_indexes() if own else ())
            if index.model != self._model
        }
        return {model: count for model, count in shared.items() if count}

    def stored(self, key: str) -> bool:
        """Whether there is a build record, listed in the index or not."""
        folder = f"{_RECORDS}{self._model}/"
        listed = self._failures.listing.keys(_RECORDS, folder)
        return record_key(self._model, key) in listed

    def lost(self, key: str) -> bool:
        """Whether a build record that the index lists is gone; False if that is not checked."""
        return self._looks and not self.stored(key)

    def damaged(self, key: str) -> str | None:
        """Returns the digest of an engine whose file is gone; None if that is not checked."""
        if not self._looks or (record := self.record(key)) is None:
            return None
        return None if self._repository.blobs.has(record.engine) else record.engine.sha256

    def record(self, key: str) -> BuildRecord | None:
        """Returns a build record."""
        if key not in self._records:
            found = self._repository.record(self._model, key)
            if found is None:
                return None
            self._records[key] = found
        return self._records[key]

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns an engine's attestations, oldest first.

        Unlisted engines may be many: of those, the repository's attestations are listed once.
        """
        if engine not in self._attestations:
            repository = self._repository
            if engine in self._new or engine in self._listed:
                self._attestations[engine] = repository.attestations(engine)
            else:
                folder = f"{ATTESTATIONS}{engine}/"
                keys = sorted(self._failures.listing.keys(ATTESTATIONS, folder))
                found = (repository.read(key, Attestation) for key in keys)
                self._attestations[engine] = [one for one in found if one is not None]
        return self._attestations[engine]

    def withdrawn(self) -> Collection[str]:
        """Returns the digests of all engines that may have been withdrawn at some time.

        The names of attestations state their kind, so one listing of the repository suffices.
        """
        return self._new | self._failures.attested.withdrawn()

    def engine(self, key: str) -> str | None:
        """Returns the digest of a stored engine, None if its build record is gone.

        The names of attestations state it: the record is read only if they do not.
        """
        if (engine := self._failures.attested.engine(key)) is not None:
            return engine
        record = self.record(key)
        return None if record is None else record.engine.sha256

    def named_verdict(self, key: str, arch: str) -> NamedVerdict | None:
        """Returns the last verdict on an unlisted engine, as far as names state it.

        Args:
            key: Key of its build record.
            arch: The architecture that it was run on.
        """
        verdict = self._failures.attested.verdict(key, arch)
        if verdict is None or verdict.engine in self._new | self._listed:
            return None
        return verdict

    def is_new(self, engine: str) -> bool:
        """Whether this run attested something about an engine that no index states yet."""
        return engine in self._new

    def export(self, key: str) -> ExportRecord | FailureRecord | None:
        """Returns an export or the record of its failure; None if it was not tried."""
        if key not in self._exports:
            found = self._repository.export(self._model, key)
            if found is not None:
                self.exports_read.append(found)
            whole = (
                found is None
                or not self._looks
                or all(map(self._repository.blobs.has, found.blobs))
            )
            if found is None:
                self._exports[key] = self._failed_export(key)
            else:
                self._exports[key] = found if whole else None
        return self._exports[key]

    def _failed_export(self, key: str) -> FailureRecord | None:
        """Returns the failure record of an export, None if it has not failed.

        A plan lists the failures once: most exports of a new repository were never tried. A run
        reads the record itself, which another machine may have written since.
        """
        model, listing = self._model, self._failures.listing
        names = (failed_export_key(model, key), disabled_key(model, key))
        if self._looks or any(listing.has(name) for name in names):
            return self._repository.failed_export(model, key)
        return None

    def missed(self, build: BuildInputs, tolerance: Tolerance) -> str | None:
        """Returns by what an engine of these inputs missed a tolerance; None if it did not."""
        return self._failures.missed(build, tolerance)

    def failed(self, build: BuildInputs, tolerance: Tolerance) -> Failed | None:
        """Returns why an engine of these inputs is not tried again; None if it is."""
        return self._failures.failed(build, tolerance)

    # Changes made by this run

    def exported(self, key: str) -> None:
        """Discards the cached export, because it has been made since."""
        self._exports.pop(key, None)

    def attested(self, engine: str) -> None:
        """Discards an engine's cached attestations, because there is a new one."""
        self._new.add(engine)
        self._attestations.pop(engine, None)
