"""What goes into keys: forms of the export and versions, known without importing any of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from typing_extensions import assert_never

from builders.photos import bundled
from builders.recipe.precisions import RECIPES, SAFETIES
from zoo.schema.keys import ExportInputs, LoweringInputs, WeightsIdentity
from zoo.schema.manifest import AnyWeights, FileWeights, HubWeights, Manifest, PypiWeights
from zoo.schema.precisions import is_lowered
from zoo.schema.targets import Placing, Precision, Rest, RuntimeLine, line_facts
from zoo.util.installed_versions import version

OPSETS = {"dynamo-20": 20, "torchscript-17": 17}
"""Opset of each dialect of the export; ``zoo/schema/targets.toml`` says who reads which."""

DIALECTS = {
    "dynamo-20": f"torch.export, opset {OPSETS['dynamo-20']}",
    "torchscript-17": f"TorchScript, opset {OPSETS['torchscript-17']}",
}
"""How a dialect is said in an export key: exporter and opset."""

VERIFICATION_METHOD = "row-wise-2"
"""How engines are compared with PyTorch. Raise the number when the comparing changes."""

_EXPORT_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnx-ir")


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the ONNX files that a model is exported to.

    Attributes:
        dialect: A name of :data:`DIALECTS`.
        precision: Of the ONNX.
        placing: Whose fusions the Q/DQ of an int8 ONNX are placed for.
        rest: Type of what an int8 ONNX does not quantise.
        safety: Part of each floor that an ONNX below fp32 may use up on calibration images.
    """

    dialect: str
    precision: Precision
    placing: Placing = Placing.TENSORRT
    rest: Rest = Rest.FP32
    safety: float = SAFETIES[0]

    @classmethod
    def for_line(cls, line: RuntimeLine, precision: Precision) -> Form:
        """Returns what a runtime line reads."""
        facts = line_facts(line)
        match precision:
            case Precision.FP32 | Precision.FP16 | Precision.BF16:
                return cls(dialect=facts.dialect, precision=precision)
            case Precision.INT8:
                return cls(
                    dialect=facts.dialect,
                    precision=precision,
                    placing=facts.int8_placing,
                    rest=facts.int8_rest,
                )
            case _:
                assert_never(precision)

    @property
    def name(self) -> str:
        """Names it among those of one dialect: ``fp16``, ``int8-tensorrt-fp16``."""
        match self.precision:
            case Precision.FP32 | Precision.FP16 | Precision.BF16:
                name = str(self.precision)
            case Precision.INT8:
                name = f"{self.precision}-{self.placing}-{self.rest}"
            case _:
                assert_never(self.precision)
        return name if self.safety == SAFETIES[0] else f"{name}-safety-{self.safety:g}"

    @property
    def stricter(self) -> tuple[Form, ...]:
        """The forms to try, one after the other, where an engine of this one misses its floors."""
        below = [safety for safety in SAFETIES if safety < self.safety]
        return tuple(replace(self, safety=one) for one in below if is_lowered(self.precision))


def export_inputs(
    manifest: Manifest, weights: WeightsIdentity, form: Form, calibration: str
) -> ExportInputs:
    """Collects what decides an export. Imports neither torch nor onnx.

    Args:
        manifest: The model.
        weights: Which weights.
        form: Of the ONNX.
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
        weights=weights,
        ignore=_ignored(manifest.weights),
        backbone=manifest.backbone,
        preprocess=manifest.preprocess.plain,
        precision=precision,
        recipe=RECIPES[precision],
        lowering=lowering if is_lowered(precision) else None,
        dialect=DIALECTS[form.dialect],
        golden=bundled.golden_name(),
        versions={name: version(name) for name in _EXPORT_PACKAGES},
    )


def _ignored(weights: AnyWeights) -> tuple[str, ...]:
    """Returns the prefixes of state-dict keys that the backbone does not use."""
    match weights:
        case HubWeights() | FileWeights():
            return weights.ignore
        case PypiWeights():
            return ()
        case _:
            assert_never(weights)
