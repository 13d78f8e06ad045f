"""Decides what a stored engine needs: nothing, a signature or a verification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from builders.history.attested import NamedVerdict
from builders.jobs.messages import VerificationSpec
from builders.planning import wanted as plan
from builders.planning.decision import Action, Cause, Decision, Known
from builders.planning.request import Request
from builders.planning.serving import current_labels, is_current
from builders.planning.wanted import Wanted
from zoo.schema.keys import KeyTemplate
from zoo.schema.published import AnyEngine
from zoo.schema.records import (
    Attestation,
    AttestationKind,
    BuildRecord,
    Status,
)
from zoo.schema.status import concerning, is_verdict, status_of, taken_back
from zoo.schema.targets import Arch, arch_of, cell_of
from zoo.util.errors import RepositoryError


class StoredEngines:
    """Decides for a model's stored engines.

    Args:
        request: The request.
        known: The repository's contents.
    """

    def __init__(self, request: Request, known: Known) -> None:
        self._request, self._known = request, known
        self._verdicts: dict[int, tuple[VerificationSpec, KeyTemplate]] = {}

    def is_withdrawn(self, key: str, wanted: Wanted) -> bool:
        """Whether a stored engine is withdrawn on one of the wanted architectures."""
        return any(status is Status.WITHDRAWN for status, _ in self._statuses(key, wanted))

    def _statuses(self, key: str, wanted: Wanted) -> Iterator[tuple[Status, str | None]]:
        """Yields status and reason of a stored engine on each architecture that is wanted.

        Only whether it is withdrawn counts. Nothing is yielded for an unlisted engine if nothing
        was ever withdrawn: that is known without reading the records of all engines.
        """
        entries = self._known.entries(key)
        if entries and not self._known.is_new(entries[0].engine.sha256):
            for arch in wanted.archs:
                entry = entries[0] if len(entries) == 1 else _entry_on(arch, entries)
                yield entry.status, entry.reason
            return
        withdrawn = self._known.withdrawn()
        engine = self._known.engine(key) if withdrawn else None
        if engine is not None and engine in withdrawn:
            attestations = self._known.attestations(engine)
            for arch in wanted.archs:
                yield status_of(concerning(attestations, arch.name))

    def outdone(self, start: Decision, wanted: Wanted) -> Decision | None:
        """Decides that nothing is done for an engine that published ones outdo; None if none do.

        That holds for the verification that was compared: with another tolerance or method, it is
        verified and compared again.
        """
        known, key = self._known, start.record
        assert key is not None
        engines = known.outdone(key)
        if not engines:
            return None
        cells = {cell_of(label): engine for engine in engines for label in engine.targets}
        settled = cells.keys() | set(map(cell_of, current_labels(key, known)))
        if not wanted.cells <= settled:
            return None
        if (spec := start.verification) is not None and any(
            self._verdict(engine.engine, spec) != engine.verdict for engine in engines
        ):
            return None
        published = known.published(next(iter(cells)))
        if published is None or self._is_withdrawn_since(published, wanted):
            return None
        text = (
            f"the engine of {published.created[:10]} stays: one of these inputs was verified and "
            f"has {engines[0].reason}"
        )
        return replace(start, action=Action.NOTHING, cause=Cause.OUTDONE, text=text)

    def _is_withdrawn_since(self, entry: AnyEngine, wanted: Wanted) -> bool:
        """Whether an engine is withdrawn, perhaps by an attestation that no index states yet."""
        engine = entry.engine.sha256
        if entry.status is Status.WITHDRAWN or engine not in self._known.withdrawn():
            return entry.status is Status.WITHDRAWN
        attestations = self._known.attestations(engine)
        return any(
            status_of(concerning(attestations, arch.name))[0] is Status.WITHDRAWN
            for arch in wanted.archs
        )

    def decide(self, start: Decision, wanted: Wanted) -> Decision:
        """Decides what a stored engine needs: nothing, a signature or a verification."""
        known, key = self._known, start.record
        assert key is not None
        if digest := known.damaged(key):
            error = RepositoryError(
                f"record {key} names engine {digest}, which is missing or cut short",
                hint=".venv/bin/zoo-farm check --repair removes damaged files so that they are "
                "made again",
            )
            return replace(
                start, action=Action.BLOCKED, cause=Cause.ENGINE_ERROR, text=error.message,
                error=error,
            )  # fmt: skip
        if start.verification is None:
            for status, reason in self._statuses(key, wanted):
                if status is Status.WITHDRAWN:
                    return replace(
                        start, action=Action.WITHDRAWN, cause=Cause.WITHDRAWN, text=reason or ""
                    )
            return self._listed(start, wanted, key)
        return self._run_somewhere(start, wanted, key)

    def _run_somewhere(self, start: Decision, wanted: Wanted, key: str) -> Decision:
        """Decides for an engine that can be run, by its verdict in the cheapest source."""
        known, done = self._known, self._listed(start, wanted, key)
        assert start.verification is not None
        entries = known.entries(key)
        if entries and not known.is_new(entries[0].engine.sha256):
            entry = entries[0] if len(entries) == 1 else _entry_on(self._runs_on(wanted), entries)
            current = self._verdict(entry.engine.sha256, start.verification) == _verdict_key(entry)
            # A person may have withdrawn an engine whose verdict is good.
            if current and entry.status is not Status.WITHDRAWN and self._request.labelled is None:
                return done
        elif (
            not entries
            and self._request.labelled is None
            and (named := known.named_verdict(key, self._runs_on(wanted).name))
        ):
            return self._by_name(done, named)
        record = known.record(key)
        if record is None:
            return replace(start, action=Action.BUILD, cause=Cause.RECORD_GONE, record=None)
        arch = self._runs_on(wanted)
        attestations = concerning(known.attestations(record.engine.sha256), arch.name)
        return self._by_verdict(done, record, attestations)

    def _runs_on(self, wanted: Wanted) -> Arch:
        """Returns the architecture on which an engine that can be run is verified."""
        arch = self._request.places.runs_on(wanted.archs, wanted.toolchain)
        assert arch is not None
        return arch

    def _by_name(self, done: Decision, named: NamedVerdict) -> Decision:
        """Decides for an engine that can be run here and that nobody may have withdrawn."""
        assert done.verification is not None
        if named.key is None:
            return replace(done, action=Action.VERIFY, cause=Cause.NOT_RUN)
        if not named.is_of(self._verdict(named.engine, done.verification)):
            return replace(done, action=Action.VERIFY, cause=Cause.VERIFICATION_CHANGED)
        return done

    def _by_verdict(
        self, done: Decision, record: BuildRecord, attestations: Sequence[Attestation]
    ) -> Decision:
        """Decides for an engine that can be run here, according to its attestations."""
        verdicts = list(filter(is_verdict, attestations))
        last = verdicts[-1] if verdicts else None
        assert done.verification is not None
        if (withdrawal := taken_back(attestations)) is not None:
            text = withdrawal.body.reason or ""
            return replace(done, action=Action.WITHDRAWN, cause=Cause.TAKEN_BACK, text=text)
        if last is None:
            return replace(done, action=Action.VERIFY, cause=Cause.NOT_RUN)
        if last.key != self._verdict(record.engine.sha256, done.verification):
            return replace(done, action=Action.VERIFY, cause=Cause.VERIFICATION_CHANGED)
        if last.kind == AttestationKind.WITHDRAWN:
            text = status_of(list(attestations))[1] or ""
            return replace(done, action=Action.WITHDRAWN, cause=Cause.WITHDRAWN, text=text)
        if self._lacks_probe(verdicts):
            return replace(done, action=Action.VERIFY, cause=Cause.NOT_PROBED)
        return done

    def _verdict(self, engine: str, spec: VerificationSpec) -> str:
        """Returns the key of an engine's verification."""
        if (known := self._verdicts.get(id(spec))) is None:
            template = KeyTemplate(plan.verification_inputs(engine, spec), "engine")
            known = self._verdicts[id(spec)] = spec, template
        return known[1].key(f'"{engine}"')

    def _lacks_probe(self, verdicts: Sequence[Attestation]) -> bool:
        """Whether no verdict includes a linear probe on the labelled photos."""
        labelled = self._request.labelled
        return labelled is not None and not any(
            verdict.probed == labelled.sha256 for verdict in verdicts
        )

    def _listed(self, start: Decision, wanted: Wanted, key: str) -> Decision:
        """Decides whether an engine that needs no work has to be listed in the index."""
        if is_current(wanted, key, self._known):
            return start
        return replace(start, action=Action.SIGN, cause=Cause.UNLISTED)


def _entry_on(arch: Arch, entries: Sequence[AnyEngine]) -> AnyEngine:
    """Returns the index entry of an engine for one architecture."""
    there = (e for e in entries if any(arch_of(label) == arch.name for label in e.targets))
    return next(there, entries[0])


def _verdict_key(entry: AnyEngine) -> str | None:
    """Returns the key of an entry's verdict, None if it is not verified."""
    if entry.status is not Status.VERIFIED or entry.verification is None:
        return None
    return entry.verification.key
