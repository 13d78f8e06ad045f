"""Decides which of a model's engines must be exported, built, verified or signed, and why.

``make plan`` prints these decisions, ``make zoo`` and ``make nightly`` carry them out, and
``zoo-farm explain`` prints one.
"""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import assert_never

from builders.history.failures import Failed
from builders.planning import wanted as plan
from builders.planning.changed import ChangedInputs
from builders.planning.decision import Action, Cause, Decision, Known
from builders.planning.engine_inputs import EngineInputs
from builders.planning.fallback import best_form
from builders.planning.order import Build
from builders.planning.request import Request
from builders.planning.serving import serving
from builders.planning.stored import StoredEngines
from builders.planning.wanted import Wanted
from builders.recipe.export_form import Form
from zoo.schema.manifest import Manifest
from zoo.schema.records import (
    ExportRecord,
    FailureReason,
    FailureRecord,
)
from zoo.util.errors import LicenceError, TargetError, UnlockedError, ZooError
from zoo.util.names import counted


def decide(manifest: Manifest, request: Request, known: Known) -> list[Decision]:
    """Decides what is done for every wanted engine of a model.

    Args:
        manifest: The model.
        request: The request.
        known: The repository's contents.
    """
    return Decider(manifest, request, known).decide()


class Decider:
    """Decides for the engines of a model; call :meth:`engine` again after something was done."""

    def __init__(self, manifest: Manifest, request: Request, known: Known) -> None:
        self._manifest, self._request, self._known = manifest, request, known
        self.inputs = EngineInputs(manifest, request, known)
        self._stored = StoredEngines(request, known)
        self._changed = ChangedInputs(self.inputs, known)

    def decide(self) -> list[Decision]:
        """Decides for all wanted engines."""
        manifest, request = self._manifest, self._request
        wanted = [
            engine
            for toolchains in request.places.lines
            for engine in plan.wanted_engines(manifest, dict(toolchains), request.precisions)
        ]
        try:
            self.inputs.identify()
            if not wanted:
                self._refuse()
        except UnlockedError as error:
            if not (wanted and self._request.locks_first):
                return self._blocked(wanted, error)
            return [
                self._decision(engine, Action.EXPORT, Cause.UNLOCKED, form=engine.form)
                for engine in wanted
            ]
        except ZooError as error:
            return self._blocked(wanted, error)
        return [self.engine(engine) for engine in wanted]

    def _blocked(self, wanted: list[Wanted], error: ZooError) -> list[Decision]:
        """Decides that nothing is made of a model."""
        text = error.message.removeprefix(f"{self._manifest.id}: ")
        if isinstance(error, LicenceError) and (count := len(self._known.given_out())):
            text += f"; this withdraws {counted(count, 'published engine')}"
            if others := self._known.sharing():
                models = ", ".join(others)
                text += (
                    f", and {sum(others.values())} of other models with the same bytes: {models}"
                )
        return [
            Decision(
                model=self._manifest.id, wanted=engine, action=Action.BLOCKED,
                cause=Cause.MODEL_ERROR, text=text, error=error,
            )
            for engine in wanted or (None,)
        ]  # fmt: skip

    def engine(self, wanted: Wanted) -> Decision:
        """Decides for an engine; its export states whether it is mixed."""
        if wanted.mixed:
            wanted = replace(wanted, mixed=False)
        try:
            return self._engine(wanted)
        except ZooError as error:
            return self._decision(
                wanted, Action.BLOCKED, Cause.ENGINE_ERROR, text=error.message, error=error
            )

    def _refuse(self) -> None:
        """Raises the reason why a model has none of the requested engines."""
        lines = {
            arch: chain.line
            for toolchains in self._request.places.lines
            for arch, chain in toolchains.items()
        }
        precisions = self._request.precisions or tuple(self._manifest.precisions)
        plan.check_request(lines, precisions, self._manifest.family)
        raise TargetError(f"{self._manifest.id}: the request asks for no engine of it")

    def _engine(self, wanted: Wanted) -> Decision:
        first = wanted.form
        builds: dict[str, tuple[Build, str | None]] = {}

        def build_of(export: ExportRecord) -> tuple[Build, str | None]:
            if export.onnx.sha256 not in builds:
                build = self.inputs.build(wanted, export)
                builds[export.onnx.sha256] = build, serving(build, self._known)
            return builds[export.onnx.sha256]

        form, export = best_form(
            first,
            lambda form: self._known.export(self.inputs.export(form)[0]),
            lambda export: self._is_known_to_miss(wanted, *build_of(export)),
        )
        if isinstance(export, FailureRecord):
            cause = Cause.EXPORT_NOT_RETRIED if self._request.retry else Cause.EXPORT_MISSED
            return self._decision(
                wanted, Action.DISABLED, cause, text=export.text, form=form, failed=export
            )
        if export is None:
            if form != first:
                return self._decision(wanted, Action.EXPORT, Cause.MISSED, form=form)
            return self._changed.unexported(
                self._decision(wanted, Action.EXPORT, Cause.NEW, form=form), wanted, form
            )
        if export.advice is not None and export.advice.mixed:
            wanted = wanted.as_mixed
        build, key = build_of(export)
        start = Decision(
            model=self._manifest.id, wanted=wanted, action=Action.NOTHING, cause=Cause.PUBLISHED,
            form=form, export=export, build=build, record=key,
            verification=self.inputs.verification(wanted, export, build),
        )  # fmt: skip
        return self._built(start, wanted, build, export)

    def _built(
        self, start: Decision, wanted: Wanted, build: Build, export: ExportRecord
    ) -> Decision:
        """Decides for an engine whose ONNX is exported."""
        key, tolerance = start.record, self.inputs.tolerance(wanted)
        if key is not None:
            if done := self._stored.outdone(start, wanted):
                return done
            if not self._known.lost(key):
                return self._stored.decide(start, wanted)
            start = replace(start, record=None)
        if failed := self._known.failed(build.inputs, tolerance):
            return self._failed(start, wanted, failed)
        return self._changed.unbuilt(start, wanted, build.inputs, export, gone=key is not None)

    def _failed(self, start: Decision, wanted: Wanted, failed: Failed) -> Decision:
        """Decides for an engine that failed earlier with the same inputs."""
        if self._request.retry:
            return replace(start, action=Action.BUILD, cause=Cause.RETRIED)
        match failed.reason:
            case FailureReason.CRASHED:
                times = "once" if failed.times == 1 else f"{failed.times} times"
                cause, text = Cause.CRASHED, f"failed {times}: {failed.text}"
            case FailureReason.TOLERANCE:
                cause = Cause.ENGINE_MISSED
                text = f"missed its tolerance, {failed.text}{self.nothing_stricter(wanted)}"
            case never:
                assert_never(never)
        return replace(start, action=Action.DISABLED, cause=cause, text=text)

    def nothing_stricter(self, wanted: Wanted) -> str:
        """Returns why no stricter network is tried, as the end of a sentence; empty without one."""
        for form in reversed(wanted.form.stricter):
            export = self._known.export(self.inputs.export(form)[0])
            if isinstance(export, FailureRecord):
                return f"; there is no stricter network: {export.text}"
            return ""
        return ""

    def _is_known_to_miss(self, wanted: Wanted, build: Build, key: str | None) -> bool:
        """Whether an engine is known to miss its tolerance.

        A stored engine that is not withdrawn meets it; its failures are not looked up.
        """
        if key is not None and not self._stored.is_withdrawn(key, wanted):
            return False
        return self._known.missed(build.inputs, self.inputs.tolerance(wanted)) is not None

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
