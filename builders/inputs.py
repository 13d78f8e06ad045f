"""What goes into keys: recipes, dialect and versions, known without importing any of them."""

from __future__ import annotations

from importlib.metadata import version

from builders import photos
from zoo.key import ExportInputs, WeightsIdentity
from zoo.manifest import Manifest, PypiWeights
from zoo.target import Precision

OPSETS = {"dynamo-20": 20, "torchscript-17": 17}
"""Opset of each dialect of the export; ``zoo/targets.toml`` says which runtime reads which."""

DIALECTS = {
    "dynamo-20": f"torch.export, opset {OPSETS['dynamo-20']}",
    "torchscript-17": f"TorchScript, opset {OPSETS['torchscript-17']}",
}
"""How a dialect is said in an export key: exporter and opset."""

FP32_ISLANDS = ("GlobalAveragePool", "LayerNormalization", "ReduceMean", "Softmax")
"""Operators that stay fp32 in an fp16 ONNX: they sum over many elements, where fp16 overflows or
loses digits."""

RECIPES: dict[Precision, str] = {
    "fp32": "as exported",
    "fp16": f"fp16-1: weights and activations fp16, fp32 islands {', '.join(FP32_ISLANDS)}; "
    "inputs and outputs fp32",
}
"""What each precision is made by. Raise the number when the making changes."""

VERIFICATION_METHOD = "row-wise-1"
"""How engines are compared with PyTorch. Raise the number when the comparing changes."""

_EXPORT_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnx-ir")


def export_inputs(
    manifest: Manifest, weights: WeightsIdentity, precision: Precision, dialect: str = "dynamo-20"
) -> ExportInputs:
    """Collects what decides an export. Imports neither torch nor onnx.

    Args:
        manifest: The model.
        weights: Which weights.
        precision: Of the ONNX.
        dialect: A name of :data:`DIALECTS`.
    """
    source = manifest.weights
    return ExportInputs(
        model=manifest.id,
        arch=manifest.timm_name,
        weights=weights,
        ignore=() if isinstance(source, PypiWeights) else source.ignore,
        backbone=manifest.backbone,
        preprocess=manifest.preprocess.plain,
        precision=precision,
        recipe=RECIPES[precision],
        dialect=DIALECTS[dialect],
        golden=photos.golden_name(),
        versions={name: version(name) for name in _EXPORT_PACKAGES},
    )
