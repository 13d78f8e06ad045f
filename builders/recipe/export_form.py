"""Inputs of export keys: ONNX forms and package versions, read without importing the packages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from typing_extensions import assert_never

from builders.photos import bundled
from builders.recipe.precisions import RECIPES, SAFETIES
from zoo.schema.keys import ExportInputs, LoweringInputs, WeightsIdentity
from zoo.schema.manifest import AnyWeights, FileWeights, HubWeights, Manifest, PypiWeights
from zoo.schema.precisions import PRECISION_FACTS, Lowering, is_lowered
from zoo.schema.targets import Placing, Precision, Rest, RuntimeLine, line_facts
from zoo.util.installed_versions import version

OPSETS = {"dynamo-20": 20, "torchscript-17": 17}
"""Opset of each dialect; ``zoo/schema/targets.toml`` lists which line reads which dialect."""

DIALECTS = {
    "dynamo-20": f"torch.export, opset {OPSETS['dynamo-20']}",
    "torchscript-17": f"TorchScript, opset {OPSETS['torchscript-17']}",
}
"""Description of each dialect in export keys: exporter and opset."""

VERIFICATION_METHOD = "row-wise-2"
"""How engines are verified. Raise the number when the comparison changes."""

FUSION = "reparameterized-1"
"""How networks with parallel branches are fused. Raise the number when that changes."""

_TO_FUSE = Path(__file__).with_name("networks_to_fuse.txt")

_EXPORT_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnx-ir")


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the ONNX files that a model is exported to.

    Attributes:
        dialect: A key of :data:`DIALECTS`.
        precision: Precision of the ONNX.
        placing: Runtime whose fusions the Q/DQ nodes of a quantised ONNX are placed for.
        rest: Type of the layers that a quantised ONNX does not quantise.
        safety: Fraction of the tolerated error that an ONNX below fp32 may use up on calibration
            images.
    """

    dialect: str
    precision: Precision
    placing: Placing = Placing.TENSORRT
    rest: Rest = Rest.FP32
    safety: float = SAFETIES[0]

    @classmethod
    def for_line(cls, line: RuntimeLine, precision: Precision) -> Form:
        """Returns the form that a runtime line reads."""
        facts = line_facts(line)
        lowering = PRECISION_FACTS[precision].lowering
        match lowering:
            case Lowering.NONE | Lowering.TYPED:
                return cls(dialect=facts.dialect, precision=precision)
            case Lowering.QUANTISED:
                return cls(
                    dialect=facts.dialect,
                    precision=precision,
                    placing=facts.int8_placing,
                    rest=facts.int8_rest,
                )
            case _:
                assert_never(lowering)

    @property
    def name(self) -> str:
        """Name among the forms of a dialect: ``fp16``, ``int8-tensorrt-fp16``."""
        lowering = PRECISION_FACTS[self.precision].lowering
        match lowering:
            case Lowering.NONE | Lowering.TYPED:
                name = str(self.precision)
            case Lowering.QUANTISED:
                name = f"{self.precision}-{self.placing}-{self.rest}"
            case _:
                assert_never(lowering)
        return name if self.safety == SAFETIES[0] else f"{name}-safety-{self.safety:g}"

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.dialect, self.precision, self.placing, self.rest, self.safety))

    @cached_property
    def stricter(self) -> tuple[Form, ...]:
        """Forms to try in this order if an engine of this one misses its tolerance."""
        if not is_lowered(self.precision):
            return ()
        return tuple(replace(self, safety=safety) for safety in SAFETIES if safety < self.safety)


def export_inputs(
    manifest: Manifest, weights: WeightsIdentity, form: Form, calibration: str
) -> ExportInputs:
    """Returns the inputs that an export depends on. Imports neither torch nor onnx.

    Args:
        manifest: The model.
        weights: Identity of its weights.
        form: Form of the ONNX.
        calibration: Name of the calibration images.
    """
    precision = form.precision
    lowering = LoweringInputs(
        calibration=calibration,
        tolerance=manifest.kept_by(precision).model_dump(mode="json"),
        placing=form.placing,
        rest=form.rest,
        half_images=manifest.half_images,
        safety=form.safety,
    )
    return ExportInputs(
        model=manifest.id,
        arch=manifest.timm_name,
        arguments=manifest.arguments,
        weights=weights,
        ignore=_ignored(manifest.weights),
        fusion=FUSION if manifest.arch in _to_fuse() else "",
        backbone=manifest.backbone,
        preprocess=manifest.preprocess.plain,
        precision=precision,
        recipe=RECIPES[precision].text,
        lowering=lowering if is_lowered(precision) else None,
        dialect=DIALECTS[form.dialect],
        golden=bundled.golden_name(),
        versions={name: version(name) for name in _EXPORT_PACKAGES},
    )


@cache
def _to_fuse() -> frozenset[str]:
    """Returns timm's architectures with branches to fuse: planning does without timm."""
    lines = _TO_FUSE.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def _ignored(weights: AnyWeights) -> tuple[str, ...]:
    """Returns the prefixes of state-dict keys that the backbone does not use."""
    match weights:
        case HubWeights() | FileWeights():
            return weights.ignore
        case PypiWeights():
            return ()
        case _:
            assert_never(weights)
