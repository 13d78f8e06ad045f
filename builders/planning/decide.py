"""Decides which of a model's engines must be exported, built, verified or signed, and why.

``make plan`` prints these decisions, ``make zoo`` and ``make nightly`` carry them out, and
``zoo-farm explain`` prints one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from builders import weights
from builders.history.failures import Failed
from builders.jobs.messages import Prove
from builders.planning import wanted as plan
from builders.planning.decision import Action, Cause, Decision, Known
from builders.planning.fallback import best_form
from builders.planning.order import build_inputs, form_of
from builders.planning.request import Request
from builders.planning.serving import serving
from builders.planning.wanted import Wanted
from builders.recipe import export_form
from builders.recipe.export_form import Form
from zoo.catalog.report import Change, changes
from zoo.schema.floors import Tolerance
from zoo.schema.index import EngineEntry
from zoo.schema.keys import BuildInputs, ExportInputs
from zoo.schema.licences import check_licence
from zoo.schema.manifest import Manifest
from zoo.schema.records import (
    Attestation,
    BuildRecord,
    ExportRecord,
    FailureReason,
    FailureRecord,
    concerning,
    status_of,
)
from zoo.schema.targets import Arch
from zoo.util.errors import RepositoryError, TargetError, ZooError


def decide(manifest: Manifest, request: Request, known: Known) -> list[Decision]:
    """Decides what is done for every engine that is wanted of a model.

    Args:
        manifest: The model.
        request: What is asked for.
        known: What there is.
    """
    return Decider(manifest, request, known).decide()


class Decider:
    """Decides for the engines of one model; :meth:`engine` again for one that has changed."""

    def __init__(self, manifest: Manifest, request: Request, known: Known) -> None:
        self._manifest, self._request, self._known = manifest, request, known
        self._calibration = request.calibration.name
        self._asked: dict[Form, tuple[str, ExportInputs]] = {}
        self._proofs: dict[object, Prove] = {}

    def decide(self) -> list[Decision]:
        """Decides for all that are wanted."""
        manifest, request = self._manifest, self._request
        wanted = [
            engine
            for toolchains in request.places.lines
            for engine in plan.wanted_engines(manifest, dict(toolchains), request.precisions)
        ]
        try:
            self.identify()
            if not wanted:
                self._refuse()
        except ZooError as error:
            text = error.message.removeprefix(f"{manifest.id}: ")
            return [
                Decision(
                    model=manifest.id, wanted=engine, action=Action.BLOCKED,
                    cause=Cause.MODEL_ERROR, text=text, error=error,
                )
                for engine in wanted or (None,)
            ]  # fmt: skip
        return [self.engine(engine) for engine in wanted]

    def identify(self) -> None:
        """Finds out which weights the manifest means.

        Raises:
            ZooError: They may not be handed out, or are not known.
        """
        if self._request.weights != "seeded":
            check_licence(self._manifest.id, self._manifest.licence)
        self.identity = weights.identify(self._manifest, self._request.weights)

    def engine(self, wanted: Wanted) -> Decision:
        """Decides for one engine; its export says what it keeps in higher precision."""
        if wanted.mixed:
            wanted = replace(wanted, mixed=False)
        try:
            return self._engine(wanted)
        except ZooError as error:
            return self._decision(
                wanted, Action.BLOCKED, Cause.ENGINE_ERROR, text=error.message, error=error
            )

    def tolerance(self, wanted: Wanted) -> Tolerance:
        """Returns what an engine has to meet."""
        return self._manifest.kept_by(wanted.precision)

    def _refuse(self) -> None:
        """Says why a model has none of what is asked for, where there is a reason to."""
        lines = {
            arch: chain.line
            for toolchains in self._request.places.lines
            for arch, chain in toolchains.items()
        }
        asked = self._request.precisions or tuple(self._manifest.precisions)
        plan.check_request(lines, asked, self._manifest.family)
        raise TargetError(f"{self._manifest.id}: nothing that is asked for is made of it")

    def _engine(self, wanted: Wanted) -> Decision:
        first, tolerance = form_of(wanted), self.tolerance(wanted)
        found: dict[str, tuple[BuildInputs, str | None]] = {}

        def look(export: ExportRecord) -> tuple[BuildInputs, str | None]:
            if export.onnx.sha256 not in found:
                build = self._build(wanted, export)
                found[export.onnx.sha256] = build, serving(build, self._known)
            return found[export.onnx.sha256]

        form, export = best_form(
            first,
            lambda form: self._known.export(self.asked(form)[0]),
            lambda export: self._gave_way(wanted, *look(export)),
        )
        if isinstance(export, FailureRecord):
            return self._decision(
                wanted, Action.DISABLED, Cause.EXPORT_MISSED, text=export.text, form=form,
                failed=export,
            )  # fmt: skip
        if export is None:
            if form != first:
                return self._decision(wanted, Action.EXPORT, Cause.MISSED, form=form)
            return self._unexported(wanted, form)
        if export.advice is not None and export.advice.mixed:
            wanted = replace(wanted, mixed=True)
        build, key = look(export)
        start = Decision(
            model=self._manifest.id, wanted=wanted, action=Action.NOTHING, cause=Cause.PUBLISHED,
            form=form, export=export, inputs=build, prove=self._prove(wanted, export, build),
        )  # fmt: skip
        if key is not None and not self._known.lost(key):
            return self._stored(replace(start, record=key), wanted)
        if failed := self._known.failed(build, tolerance):
            return self._failed(start, wanted, failed)
        return self._unbuilt(start, wanted, build, export, gone=key is not None)

    def _failed(self, start: Decision, wanted: Wanted, failed: Failed) -> Decision:
        """Decides for an engine that failed before with the same inputs."""
        if self._request.retry:
            return replace(start, action=Action.BUILD, cause=Cause.RETRIED)
        if failed.reason is FailureReason.CRASHED:
            text = f"failed {failed.times} times: {failed.text}"
            return replace(start, action=Action.DISABLED, cause=Cause.CRASHED, text=text)
        text = f"missed its floors, {failed.text}{self.nothing_stricter(wanted)}"
        return replace(start, action=Action.DISABLED, cause=Cause.ENGINE_MISSED, text=text)

    def nothing_stricter(self, wanted: Wanted) -> str:
        """Says why no stricter network is tried, for the end of a sentence; empty without one."""
        for form in reversed(form_of(wanted).stricter):
            export = self._known.export(self.asked(form)[0])
            if isinstance(export, FailureRecord):
                return f"; there is no stricter network: {export.text}"
            return ""
        return ""

    def _gave_way(self, wanted: Wanted, build: BuildInputs, key: str | None) -> bool:
        """Whether an engine is known to miss its tolerance.

        What is stored and was not withdrawn meets it, and nothing more is asked of it.
        """
        if key is not None and not self._withdrawn(key, wanted):
            return False
        return self._known.missed(build, self.tolerance(wanted)) is not None

    def _withdrawn(self, key: str, wanted: Wanted) -> bool:
        """Whether a stored engine was withdrawn on one of the architectures that are wanted."""
        return any(status == "withdrawn" for status, _ in self._statuses(key, wanted))

    def _statuses(self, key: str, wanted: Wanted) -> Iterator[tuple[str, str | None]]:
        """Yields where a stored engine stands on each architecture that is wanted."""
        entries = self._known.entries(key)
        if entries and not self._known.is_new(entries[0].engine.sha256):
            for arch in wanted.archs:
                entry = _entry_on(arch, entries)
                yield entry.status, entry.reason
        elif (record := self._known.record(key)) is not None:
            attestations = self._known.attestations(record.engine.sha256)
            for arch in wanted.archs:
                yield status_of(concerning(attestations, arch.name))

    def _stored(self, start: Decision, wanted: Wanted) -> Decision:
        """Decides for an engine that is built: nothing, a signature, or a verification."""
        known, key = self._known, start.record
        assert key is not None
        if digest := known.damaged(key):
            error = RepositoryError(
                f"record {key} names engine {digest}, which is missing or cut short",
                hint=".venv/bin/zoo-farm check --repair removes what is damaged, to be made again",
            )
            return replace(
                start, action=Action.BLOCKED, cause=Cause.ENGINE_ERROR, text=error.message,
                error=error,
            )  # fmt: skip
        done = self._listed(start, wanted, key)
        if start.prove is None:
            for status, reason in self._statuses(key, wanted):
                if status == "withdrawn":
                    return replace(
                        start, action=Action.WITHDRAWN, cause=Cause.WITHDRAWN, text=reason or ""
                    )
            return done
        arch = self._request.places.runs_on(wanted.archs, wanted.toolchain)
        assert arch is not None
        entries = known.entries(key)
        if entries and not known.is_new(entries[0].engine.sha256):
            entry = _entry_on(arch, entries)
            asked = _verdict(entry.engine.sha256, start.prove)
            if asked == _verdict_key(entry) and self._request.labelled is None:
                return done
        record = known.record(key)
        if record is None:
            return replace(start, action=Action.BUILD, cause=Cause.RECORD_GONE, record=None)
        attestations = concerning(known.attestations(record.engine.sha256), arch.name)
        return self._judged(done, record, attestations)

    def _judged(
        self, done: Decision, record: BuildRecord, attestations: Sequence[Attestation]
    ) -> Decision:
        """Decides for an engine that can be run here, from what was attested about it."""
        verdicts = [one for one in attestations if one.kind in ("verified", "withdrawn")]
        last = verdicts[-1] if verdicts else None
        assert done.prove is not None
        if last is not None and last.by_hand:
            text = status_of(list(attestations))[1] or ""
            return replace(done, action=Action.WITHDRAWN, cause=Cause.TAKEN_BACK, text=text)
        if last is None:
            return replace(done, action=Action.VERIFY, cause=Cause.NOT_RUN)
        if last.key != _verdict(record.engine.sha256, done.prove):
            return replace(done, action=Action.VERIFY, cause=Cause.PROOF_CHANGED)
        if last.kind == "withdrawn":
            text = status_of(list(attestations))[1] or ""
            return replace(done, action=Action.WITHDRAWN, cause=Cause.WITHDRAWN, text=text)
        if self._lacks_probe(verdicts):
            return replace(done, action=Action.VERIFY, cause=Cause.NOT_PROBED)
        return done

    def _lacks_probe(self, verdicts: Sequence[Attestation]) -> bool:
        """Whether no verdict says anything of the labelled photos."""
        labelled = self._request.labelled
        return labelled is not None and not any(one.probed == labelled.sha256 for one in verdicts)

    def _listed(self, start: Decision, wanted: Wanted, key: str) -> Decision:
        """Decides for an engine that needs no work: whether the index says it already."""
        current = {
            _cell(label)
            for entry in self._known.entries(key)
            if entry.superseded is None
            for label in entry.targets
        }
        if all(_cell(str(target)) in current for target in wanted.targets):
            return start
        return replace(start, action=Action.SIGN, cause=Cause.UNLISTED)

    def _unbuilt(
        self,
        start: Decision,
        wanted: Wanted,
        build: BuildInputs,
        export: ExportRecord,
        *,
        gone: bool,
    ) -> Decision:
        """Says why an engine is built: which fields differ from what is published."""
        if gone:
            return replace(start, action=Action.BUILD, cause=Cause.RECORD_GONE)
        before = self._before(wanted)
        if before is None:
            return replace(start, action=Action.BUILD, cause=Cause.NEW)
        changed = _differ(before.inputs, build)
        if before.inputs.onnx != build.onnx:
            old = self._known.export(before.export_key)
            if isinstance(old, ExportRecord):
                of_export = _differ(old.inputs, export.inputs)
                changed += tuple(
                    change.model_copy(update={"field": f"export.{change.field}"})
                    for change in of_export
                )
        return replace(start, action=Action.BUILD, cause=Cause.BUILD_KEY_CHANGED, changed=changed)

    def _unexported(self, wanted: Wanted, form: Form) -> Decision:
        """Says why an export is made, and whether an engine is sure to follow."""
        before = self._before(wanted)
        if before is None:
            return self._decision(wanted, Action.EXPORT, Cause.NEW, form=form)
        old = self._known.export(before.export_key)
        if not isinstance(old, ExportRecord):
            return self._decision(wanted, Action.EXPORT, Cause.EXPORT_GONE, form=form)
        changed = _differ(old.inputs, self.asked(form)[1])
        build = self._build(wanted, old)
        further = tuple(
            change
            for change in _differ(before.inputs, build)
            if change.field.partition(".")[0] not in ("archs", "preprocess")
        )
        perhaps = before.key == build.key or serving(build, self._known) is not None
        cause = Cause.EXPORT_KEY_CHANGED if perhaps else Cause.KEYS_CHANGED
        decision = self._decision(wanted, Action.EXPORT, cause, form=form)
        return replace(decision, changed=(*changed, *further), perhaps=perhaps)

    def _before(self, wanted: Wanted) -> BuildRecord | None:
        """Returns the record of what is published for a target now."""
        for target in wanted.targets:
            entry = self._known.published(_cell(str(target)))
            if entry is not None:
                return self._known.record(entry.record)
        return None

    def asked(self, form: Form) -> tuple[str, ExportInputs]:
        """Returns what an export is made from, after its key."""
        if form not in self._asked:
            made = export_form.export_inputs(self._manifest, self.identity, form, self._calibration)
            self._asked[form] = made.key, made
        return self._asked[form]

    def _build(self, wanted: Wanted, export: ExportRecord) -> BuildInputs:
        return build_inputs(self._manifest, wanted, export, self._request.builder)

    def _prove(self, wanted: Wanted, export: ExportRecord, build: BuildInputs) -> Prove | None:
        """Says how an engine is verified, None where it can't be run; many are verified alike."""
        if self._request.places.runs_on(wanted.archs, wanted.toolchain) is None:
            return None
        alike = (export.onnx.sha256, export.golden.sha256, build.precision, build.profiles)
        if alike not in self._proofs:
            self._proofs[alike] = plan.proof(
                self._manifest, export, build.precision, build.profiles
            )
        return self._proofs[alike]

    def _decision(
        self,
        wanted: Wanted,
        action: Action,
        cause: Cause,
        *,
        text: str = "",
        form: Form | None = None,
        error: ZooError | None = None,
        failed: FailureRecord | None = None,
    ) -> Decision:
        return Decision(
            model=self._manifest.id, wanted=wanted, action=action, cause=cause, text=text,
            form=form, error=error, failed=failed,
        )  # fmt: skip


def _verdict(engine: str, prove: Prove) -> str:
    return plan.verification_inputs(engine, prove, export_form.VERIFICATION_METHOD).key


def _entry_on(arch: Arch, entries: Sequence[EngineEntry]) -> EngineEntry:
    """Returns what the index says of an engine on one architecture."""
    start = f"{arch}-"
    there = (one for one in entries if any(label.startswith(start) for label in one.targets))
    return next(there, entries[0])


def _verdict_key(entry: EngineEntry) -> str | None:
    """Returns the key of the verdict that an entry shows, None where it is not verified."""
    if entry.status != "verified" or entry.verification is None:
        return None
    return entry.verification.key


def _differ(
    before: BuildInputs | ExportInputs, now: BuildInputs | ExportInputs
) -> tuple[Change, ...]:
    return tuple(changes(before.model_dump(mode="json"), now.model_dump(mode="json")))


def _cell(label: str) -> str:
    return label.removesuffix("-mixed")
