"""The inputs of a model's exports, builds and verifications."""

from __future__ import annotations

from builders import weights
from builders.jobs.messages import VerificationSpec
from builders.jobs.tactics import LOCKED, TACTICS
from builders.planning import wanted as plan
from builders.planning.decision import Known
from builders.planning.order import Build, ModelBuilds
from builders.planning.request import Request
from builders.planning.wanted import Wanted
from builders.recipe import export_form
from builders.recipe.export_form import Form
from builders.weights.mode import MODE_FACTS
from zoo.schema.floors import Tolerance
from zoo.schema.keys import ExportInputs
from zoo.schema.licences import check_licence
from zoo.schema.manifest import Manifest
from zoo.schema.records import ExportRecord, Status
from zoo.schema.targets import Precision
from zoo.util.errors import TargetError


class EngineInputs:
    """Computes the inputs of one model's exports and engines, each once.

    Args:
        manifest: The model.
        request: The request.
        known: The repository's contents.
    """

    def __init__(self, manifest: Manifest, request: Request, known: Known) -> None:
        self._manifest, self._request, self._known = manifest, request, known
        self._calibration = request.calibration.name
        self._builds = ModelBuilds(manifest, request.builder)
        self._made: dict[Form, tuple[str, ExportInputs]] = {}
        self._specs: dict[object, VerificationSpec] = {}
        self._tolerances: dict[Precision, Tolerance] = {}

    def identify(self) -> None:
        """Determines which weights the manifest means.

        Raises:
            ZooError: Their licence forbids distribution, they are not pinned, or timm states
                something else about them.
        """
        if not MODE_FACTS[self._request.weights].kind.seeded:  # first: it withdraws what it forbids
            check_licence(self._manifest.id, self._manifest.licence)
        if (refused := self._request.refused.get(self._manifest.id)) is not None:
            raise refused
        if (error := self._request.unlocked.get(self._manifest.id)) is not None:
            raise error
        self.identity = weights.identify(self._manifest, self._request.weights)

    def tolerance(self, wanted: Wanted) -> Tolerance:
        """Returns the tolerance that an engine has to meet."""
        precision = wanted.precision
        if (tolerance := self._tolerances.get(precision)) is None:
            tolerance = self._tolerances[precision] = self._manifest.kept_by(precision)
        return tolerance

    def export(self, form: Form) -> tuple[str, ExportInputs]:
        """Returns the key of an export, and its inputs."""
        if (known := self._made.get(form)) is None:
            made = export_form.export_inputs(self._manifest, self.identity, form, self._calibration)
            known = self._made[form] = made.key, made
        return known

    def build(self, wanted: Wanted, export: ExportRecord) -> Build:
        """Returns the build of an engine.

        Raises:
            TargetError: Its tactics are to be locked, and the published engine has none.
        """
        made = self._builds.build(wanted, export)
        if (options := made.alike.options).get(TACTICS) != LOCKED:
            return made
        locked = {**options, TACTICS: self._lock(wanted)}
        return Build.of(made.inputs.model_copy(update={"options": locked}))

    def _lock(self, wanted: Wanted) -> str:
        """Returns the digest of the tactics of the published engine of a target."""
        for target in wanted.targets:
            entry = self._known.published(target.label.cell)
            if entry is None or entry.status is Status.WITHDRAWN:
                continue
            record = self._known.record(entry.record)
            if record is not None and (lock := record.files.get(TACTICS)) is not None:
                return lock.sha256
        raise TargetError(
            f"{self._manifest.id}: no engine with recorded tactics is published for {wanted.label}",
            hint="BUILDER=tactics=recorded builds one",
        )

    def verification(
        self, wanted: Wanted, export: ExportRecord, build: Build
    ) -> VerificationSpec | None:
        """Returns how an engine is verified, None if it can't be run anywhere."""
        if self._request.places.runs_on(wanted.archs, wanted.toolchain) is None:
            return None
        alike = build.alike
        shared = (export.onnx.sha256, export.golden.sha256, alike.precision, alike.profiles)
        if (spec := self._specs.get(shared)) is None:
            spec = self._specs[shared] = plan.verification_spec(
                self._manifest, export, alike.precision, alike.profiles
            )
        return spec
