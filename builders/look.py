"""Look: what one model's engines need, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeVar

from builders import inputs, plan, weights
from builders.inputs import Form
from builders.job import Prove
from builders.misses import Misses, best_form
from builders.order import build_inputs, form_of
from builders.places import Places
from builders.plan import Wanted
from builders.planned import Action, PlannedEngine
from builders.strikes import strikes_of, why_disabled
from builders.weights import WeightsMode
from zoo.catalog.report import Change, changes
from zoo.errors import ZooError
from zoo.index import EngineEntry, ModelIndex
from zoo.key import BuildInputs, ExportInputs
from zoo.layout import record_key, strikes_prefix
from zoo.licences import check_licence
from zoo.manifest import Manifest
from zoo.record import BuildRecord, DisabledRecord, ExportRecord, concerning
from zoo.repository import Repository
from zoo.target import Arch, Precision
from zoo.tolerance import Tolerance

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a plan is asked about.

    Attributes:
        manifests: The models.
        precisions: By name, or None for all that a model and its target take.
        weights: Real weights, or seeded ones.
        calibration: Name of the calibration images.
        builder: Builder options by name, as text.
    """

    manifests: Mapping[str, Manifest]
    precisions: tuple[Precision, ...] | None
    weights: WeightsMode
    calibration: str
    builder: Mapping[str, str] = field(default_factory=dict)


class Built:
    """What was built or failed, in the index or not: one listing each, when first asked for."""

    def __init__(self, repository: Repository) -> None:
        self._list = _once(lambda prefix: [one.key for one in repository.store.list(prefix)])
        self._records = _once(lambda prefix: set(self._list(prefix)))
        self.misses = Misses(repository)
        self._strikes = _once(lambda prefix: set(map(_folder, self._list(prefix))))

    def record(self, model: str, key: str) -> bool:
        """Whether there is a build record of a key."""
        return record_key(model, key) in self._records("records/")

    def struck(self, model: str, key: str) -> bool:
        """Whether an engine of a key failed."""
        return strikes_prefix(model, key) in self._strikes("strikes/")


def _folder(key: str) -> str:
    return key[: key.rindex("/") + 1]


def _once(function: Callable[[str], T]) -> Callable[[str], T]:
    """Returns a function that asks another once, whichever thread comes first."""
    lock, answers = Lock(), dict[str, T]()

    def ask(prefix: str) -> T:
        with lock:
            if prefix not in answers:
                answers[prefix] = function(prefix)
            return answers[prefix]

    return ask


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was found out about a model.

    Attributes:
        model: Its id.
        engines: What would be done, expectations aside.
        exports: Those that were read.
        dialects: Dialects in which something would be exported.
    """

    model: str
    engines: tuple[PlannedEngine, ...]
    exports: tuple[ExportRecord, ...] = ()
    dialects: tuple[str, ...] = ()


class Look:
    """A look at one model."""

    def __init__(
        self,
        repository: Repository,
        wish: Wish,
        manifest: Manifest,
        index: ModelIndex | None,
        built: Built,
    ) -> None:
        self._repository = repository
        self._wish = wish
        self._manifest = manifest
        self._built = built
        self._published: dict[str, EngineEntry] = {}
        self._by_record: dict[str, list[EngineEntry]] = {}
        for entry in index.engines if index else ():
            self._by_record.setdefault(entry.record, []).append(entry)
            if entry.superseded is None:
                self._published |= {label.removesuffix("-mixed"): entry for label in entry.targets}
        self._archs = {
            record: {label.partition("-")[0] for entry in entries for label in entry.targets}
            for record, entries in self._by_record.items()
        }
        self._exports: dict[str, ExportRecord | DisabledRecord | None] = {}
        self._of_form: dict[Form, tuple[str, ExportInputs]] = {}
        self._dialects: set[str] = set()
        self._proofs: dict[object, Prove] = {}

    def plan(self, places: Places) -> Looked:
        """Says what would be done for every engine that is wanted on some places."""
        manifest, wish = self._manifest, self._wish
        wanted = [
            one
            for toolchains in places.lines
            for one in plan.wanted_engines(manifest, dict(toolchains), wish.precisions)
        ]
        engines: list[PlannedEngine] = []
        try:
            if wish.weights != "seeded":
                check_licence(manifest.id, manifest.licence)
            self._identity = weights.identify(manifest, wish.weights)
        except ZooError as error:
            reason = error.message.removeprefix(f"{manifest.id}: ")
            engines = [self._planned(one, "blocked", reason) for one in wanted]
            return Looked(model=manifest.id, engines=tuple(engines))
        for one in wanted:
            try:
                engines.append(self._engine(one, places))
            except ZooError as error:
                engines.append(self._planned(one, "blocked", error.message))
        read = tuple(one for one in self._exports.values() if isinstance(one, ExportRecord))
        return Looked(
            model=manifest.id, engines=tuple(engines), exports=read,
            dialects=tuple(sorted(self._dialects)),
        )  # fmt: skip

    def _engine(self, wanted: Wanted, places: Places) -> PlannedEngine:
        looked: dict[str, tuple[BuildInputs, list[EngineEntry]]] = {}

        def look(export: ExportRecord) -> tuple[BuildInputs, list[EngineEntry]]:
            if export.onnx.sha256 not in looked:
                build = build_inputs(self._manifest, wanted, export, self._wish.builder)
                looked[export.onnx.sha256] = build, self._entries(build)
            return looked[export.onnx.sha256]

        def missed(export: ExportRecord) -> bool:
            build, entries = look(export)
            # What is published and was not withdrawn keeps its floors, nothing more is asked of it.
            unproven = not entries or any(entry.status == "withdrawn" for entry in entries)
            return unproven and self._built.misses.known(build, self._kept_by(wanted))

        first = form_of(wanted)
        form, export = best_form(first, lambda form: self._export(self._asked(form)[0]), missed)
        if isinstance(export, DisabledRecord):
            return self._planned(wanted, "disabled", export.reason)
        if export is None:
            self._dialects.add(form.dialect)
            if form != first:
                return self._planned(wanted, "export", "an engine missed its floors")
            return self._unexported(wanted, self._asked(form)[1])
        if export.advice is not None and export.advice.mixed:
            wanted = replace(wanted, mixed=True)
        build, entries = look(export)
        if entries:
            return self._proven(wanted, build, export, entries[0], places)
        if self._built.record(self._manifest.id, build.key):
            return self._planned(wanted, "sign", "it is built, and in no index yet")
        if self._built.struck(self._manifest.id, build.key):
            tolerance = self._kept_by(wanted)
            known = strikes_of(self._repository, self._manifest.id, build.key, tolerance)
            if reason := why_disabled(known):
                return self._planned(wanted, "disabled", reason)
        if missed(export):
            reason = "an engine of the same inputs missed its floors"
            return self._planned(wanted, "disabled", reason)
        before = self._before(wanted)
        if before is None:
            return self._planned(wanted, "build", "nothing is published for it")
        changed = _differ(before.inputs, build)
        old = self._export(before.export_key) if before.inputs.onnx != build.onnx else None
        if isinstance(old, ExportRecord):
            of_export = _differ(old.inputs, export.inputs)
            changed += tuple(
                one.model_copy(update={"field": f"export.{one.field}"}) for one in of_export
            )
        return self._planned(wanted, "build", _why(changed, "its build key"), changed)

    def _unexported(self, wanted: Wanted, asked: ExportInputs) -> PlannedEngine:
        """Says why an export is to be made, and whether an engine is sure to follow."""
        before = self._before(wanted)
        if before is None:
            return self._planned(wanted, "export", "nothing is published for it")
        old = self._export(before.export_key)
        if not isinstance(old, ExportRecord):
            return self._planned(wanted, "export", "the export of what is published is gone")
        changed = _differ(old.inputs, asked)
        build = build_inputs(self._manifest, wanted, old, self._wish.builder)
        further = tuple(
            one
            for one in _differ(before.inputs, build)
            if one.field.partition(".")[0] not in ("archs", "preprocess")
        )
        perhaps = before.key == build.key or bool(self._entries(build))
        reason = _why((*changed, *further), "its export key" if perhaps else "its keys")
        planned = self._planned(wanted, "export", reason, (*changed, *further))
        return planned.model_copy(update={"perhaps": perhaps})

    def _proven(
        self,
        wanted: Wanted,
        build: BuildInputs,
        export: ExportRecord,
        entry: EngineEntry,
        places: Places,
    ) -> PlannedEngine:
        """Says what a published engine needs: nothing, or a proof."""
        arch = places.runs_on(wanted)
        if arch is None and entry.status != "withdrawn":
            return self._planned(wanted, "nothing")
        key = None
        if arch is not None:
            entry = _entry_on(arch, self._by_record[entry.record])
            prove = self._prove(export, build)
            method = inputs.VERIFICATION_METHOD
            key = plan.verification_inputs(entry.engine.sha256, prove, method).key
            if key == _verdict_key(entry):
                return self._planned(wanted, "nothing")
        record = self._repository.record(self._manifest.id, entry.record)
        known = self._repository.attestations(entry.engine.sha256)
        if arch is not None:
            known = concerning(known, arch.name)
        need = plan.need_of(record, known, key)
        if need == "withdrawn" or (key is None and entry.status == "withdrawn"):
            return self._planned(wanted, "withdrawn", entry.reason or "")
        if need == "build":
            return self._planned(wanted, "build", "its record is gone")
        if need != "verify":
            return self._planned(wanted, "nothing")
        if entry.status == "pending":
            return self._planned(wanted, "verify", "it has not been run")
        return self._planned(wanted, "verify", "what a proof asks for has changed")

    def _kept_by(self, wanted: Wanted) -> Tolerance:
        return self._manifest.kept_by(wanted.precision)

    def _entries(self, build: BuildInputs) -> list[EngineEntry]:
        """Returns the index's entries of an engine of these inputs, or of more architectures."""
        key, wanted = build.key, set(build.archs)
        if key in self._by_record:
            return self._by_record[key]
        for record, archs in self._archs.items():
            if wanted < archs:
                wider = build.model_copy(update={"archs": tuple(sorted(archs))})
                if wider.key == record:
                    return self._by_record[record]
        return []

    def _before(self, wanted: Wanted) -> BuildRecord | None:
        """Returns the record of what is published for a target now."""
        for target in wanted.targets:
            entry = self._published.get(str(target).removesuffix("-mixed"))
            if entry is not None:
                return self._repository.record(self._manifest.id, entry.record)
        return None

    def _asked(self, form: Form) -> tuple[str, ExportInputs]:
        """Returns what an export is to be made from, and its key."""
        if form not in self._of_form:
            made = inputs.export_inputs(
                self._manifest, self._identity, form, self._wish.calibration
            )
            self._of_form[form] = made.key, made
        return self._of_form[form]

    def _export(self, key: str) -> ExportRecord | DisabledRecord | None:
        if key not in self._exports:
            model = self._manifest.id
            found = self._repository.export(model, key) or self._repository.disabled(model, key)
            self._exports[key] = found
        return self._exports[key]

    def _prove(self, export: ExportRecord, build: BuildInputs) -> Prove:
        """Says how an engine is to be proven; many are to be proven alike."""
        alike = (export.onnx.sha256, export.golden.sha256, build.profiles)
        if alike not in self._proofs:
            self._proofs[alike] = plan.proof(
                self._manifest, export, build.precision, build.profiles
            )
        return self._proofs[alike]

    def _planned(
        self, wanted: Wanted, action: Action, reason: str = "", changed: Iterable[Change] = ()
    ) -> PlannedEngine:
        return PlannedEngine.model_construct(
            model=self._manifest.id,
            archs=tuple(arch.name for arch in wanted.archs),
            trt=wanted.toolchain.line.asked,
            label=wanted.label,
            action=action,
            reason=reason,
            changed=tuple(changed),
        )


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


def _why(changed: Sequence[Change], what: str) -> str:
    names = ", ".join(one.field for one in changed[:3])
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"{what} changed: {names}{more}" if changed else f"{what} is not published"
