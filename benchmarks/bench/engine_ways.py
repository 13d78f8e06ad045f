"""Runs one network in one way, in a process of its own (:mod:`benchmarks.bench.child`).

``openvino`` and ``onnxruntime`` need nothing but numpy and that package, so that they run in the
peers' environment as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.bench.serve import serve

Work = dict[str, Any]
"""Paths of the engine, its ONNX and what else the ways need."""

Made = tuple[str, Callable[[Any], Any]]
"""A name with its version, and what computes features of a batch."""


def ours(work: Work) -> Made:
    """The published engine, as ``zoo.load`` runs it."""
    from zoo.runtime import open_session
    from zoo.schema.records import BuildRecord

    record = BuildRecord.model_validate_json(Path(work["record"]).read_bytes())
    session = open_session(Path(work["engine"]), record.inputs)
    return f"{record.targets[0]}", session.features


def onnxruntime(work: Work) -> Made:
    """The same ONNX, as ONNX Runtime's first example runs it."""
    import onnxruntime as ort

    session = ort.InferenceSession(work["onnx"], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return f"ONNX Runtime {ort.__version__}", lambda x: session.run(None, {name: x})[0]


def openvino(work: Work) -> Made:
    """The same ONNX in OpenVINO, as its first example runs it, and in fp32 as the others."""
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(work["onnx"]), "CPU", settings)
    return f"OpenVINO {ov.__version__.partition('-')[0]}", lambda x: compiled(x)[0]


def eager(work: Work) -> Made:
    """The backbone in PyTorch."""
    import torch

    model = _backbone(work)

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return f"PyTorch {torch.__version__}, eager", run


def compiled(work: Work) -> Made:
    """The backbone in PyTorch, compiled by inductor."""
    import torch

    model = torch.compile(_backbone(work))

    def run(x: Any) -> Any:
        with torch.inference_mode():
            features: Any = model(torch.from_numpy(x))  # type: ignore[no-untyped-call]
            return features.numpy()

    return f"PyTorch {torch.__version__}, torch.compile", run


def _backbone(work: Work) -> Any:
    from builders.measure.engine_vs_pytorch import backbone_of
    from zoo.repository.repository import Repository
    from zoo.schema.manifest import load_manifest
    from zoo.schema.records import BuildRecord
    from zoo.stores import LocalStore

    record = BuildRecord.model_validate_json(Path(work["record"]).read_bytes())
    path = Path(work["manifest"])
    repository = Repository(LocalStore(Path(work["store"])))
    return backbone_of(repository, load_manifest(path), path.parent, record).eval()


WAYS: Mapping[str, Callable[[Work], Made]] = {
    "ours": ours,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "eager": eager,
    "compiled": compiled,
}


def main() -> None:
    """Writes the features of the images, for comparison, and then answers each line."""
    way, path = sys.argv[1:]
    work = json.loads(Path(path).read_text())
    images = np.load(work["images"])
    name, features = WAYS[way](work)
    np.save(Path(path).with_name(f"{way}.npy"), features(images))

    def run() -> None:
        for _ in range(work["repeats"]):
            features(images)

    serve(name, run)


if __name__ == "__main__":
    main()
