"""Determines why an engine is exported or built: the fields that differ from the published one."""

from __future__ import annotations

from dataclasses import replace

from builders.planning.decision import Action, Cause, Decision, Known
from builders.planning.engine_inputs import EngineInputs
from builders.planning.serving import serving
from builders.planning.wanted import Wanted
from builders.recipe.export_form import Form
from zoo.catalog.report import Change, changes
from zoo.schema.keys import BuildInputs, ExportInputs
from zoo.schema.records import (
    BuildRecord,
    ExportRecord,
    Status,
)


class ChangedInputs:
    """Compares the inputs of a model's engines with those of the published ones.

    Args:
        inputs: The inputs of the model's exports and engines.
        known: The repository's contents.
    """

    def __init__(self, inputs: EngineInputs, known: Known) -> None:
        self._inputs, self._known = inputs, known

    def unbuilt(
        self,
        start: Decision,
        wanted: Wanted,
        build: BuildInputs,
        export: ExportRecord,
        *,
        gone: bool,
    ) -> Decision:
        """Decides to build an engine, with the fields that differ from the published one."""
        if gone:
            return replace(start, action=Action.BUILD, cause=Cause.RECORD_GONE)
        before = self._before(wanted)
        if before is None:
            return replace(start, action=Action.BUILD, cause=Cause.NEW)
        changed, contested = _differ(before.inputs, build), False
        if before.inputs.onnx != build.onnx:
            old = self._known.export(before.export_key)
            if isinstance(old, ExportRecord):
                of_export = _differ(old.inputs, export.inputs)
                changed += tuple(
                    change.model_copy(update={"field": f"export.{change.field}"})
                    for change in of_export
                )
                contested = _are_alike(before.inputs, build, old.inputs, export.inputs)
        return replace(
            start, action=Action.BUILD, cause=Cause.BUILD_KEY_CHANGED, changed=changed,
            contested=contested and self._is_verified(wanted),
        )  # fmt: skip

    def unexported(self, start: Decision, wanted: Wanted, form: Form) -> Decision:
        """Decides to export, with the fields that differ, and whether a build is sure to follow."""
        before = self._before(wanted)
        if before is None:
            return replace(start, cause=Cause.NEW)
        old = self._known.export(before.export_key)
        if not isinstance(old, ExportRecord):
            return replace(start, cause=Cause.EXPORT_GONE)
        new = self._inputs.export(form)[1]
        changed = _differ(old.inputs, new)
        planned = self._inputs.build(wanted, old)
        build = planned.inputs
        further = tuple(
            change
            for change in _differ(before.inputs, build)
            if change.field.partition(".")[0] not in ("archs", "preprocess")
        )
        perhaps = before.key == build.key or serving(planned, self._known) is not None
        cause = Cause.EXPORT_KEY_CHANGED if perhaps else Cause.KEYS_CHANGED
        contested = _are_alike(before.inputs, build, old.inputs, new) and self._is_verified(wanted)
        return replace(
            start, cause=cause, changed=(*changed, *further), perhaps=perhaps, contested=contested
        )

    def _before(self, wanted: Wanted) -> BuildRecord | None:
        """Returns the record of the engine that is published for the targets now."""
        for target in wanted.targets:
            entry = self._known.published(target.label.cell)
            if entry is not None:
                return self._known.record(entry.record)
        return None

    def _is_verified(self, wanted: Wanted) -> bool:
        """Whether a verified engine is published for one of the targets now."""
        entries = (self._known.published(target.label.cell) for target in wanted.targets)
        return any(entry is not None and entry.status is Status.VERIFIED for entry in entries)


def _are_alike(
    before: BuildInputs, build: BuildInputs, old: ExportInputs, new: ExportInputs
) -> bool:
    """Whether an engine would be another attempt at the same one (ADR 40)."""
    return before.specification == build.specification and old.specification == new.specification


def _differ(
    before: BuildInputs | ExportInputs, now: BuildInputs | ExportInputs
) -> tuple[Change, ...]:
    return tuple(changes(before.model_dump(mode="json"), now.model_dump(mode="json")))
