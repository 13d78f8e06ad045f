"""Runs one network in one way, in a process of its own (:mod:`benchmarks.bench.child`).

``openvino`` and ``onnxruntime`` need nothing but numpy and that package, so that they run in the
peers' environment as well.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.bench.serve import serve


def ours(work):  # type: ignore[no-untyped-def]
    """The published engine, as ``zoo.load`` runs it."""
    from zoo.runtime import open_session
    from zoo.schema.records import BuildRecord

    record = BuildRecord.model_validate_json(Path(work["record"]).read_bytes())
    session = open_session(Path(work["engine"]), record.inputs)
    return f"{record.targets[0]}", session.features


def onnxruntime(work):  # type: ignore[no-untyped-def]
    """The same ONNX, as ONNX Runtime's first example runs it."""
    import onnxruntime as ort

    session = ort.InferenceSession(work["onnx"], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return f"ONNX Runtime {ort.__version__}", lambda x: session.run(None, {name: x})[0]


def openvino(work):  # type: ignore[no-untyped-def]
    """The same ONNX in OpenVINO, as its first example runs it, and in fp32 as the others."""
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(work["onnx"]), "CPU", settings)
    return f"OpenVINO {ov.__version__.partition('-')[0]}", lambda x: compiled(x)[0]


def eager(work):  # type: ignore[no-untyped-def]
    """The backbone in PyTorch."""
    import torch

    model = _backbone(work)

    def run(x):  # type: ignore[no-untyped-def]
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return f"PyTorch {torch.__version__}, eager", run


def compiled(work):  # type: ignore[no-untyped-def]
    """The backbone in PyTorch, compiled by inductor."""
    import torch

    model = torch.compile(_backbone(work))

    def run(x):  # type: ignore[no-untyped-def]
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return f"PyTorch {torch.__version__}, torch.compile", run


def _backbone(work):  # type: ignore[no-untyped-def]
    from builders.measure.engine_vs_pytorch import backbone_of
    from zoo.repository.repository import Repository
    from zoo.schema.manifest import load_manifest
    from zoo.schema.records import BuildRecord
    from zoo.stores import LocalStore

    record = BuildRecord.model_validate_json(Path(work["record"]).read_bytes())
    path = Path(work["manifest"])
    repository = Repository(LocalStore(Path(work["store"])))
    return backbone_of(repository, load_manifest(path), path.parent, record).eval()


WAYS = {way.__name__: way for way in (ours, onnxruntime, openvino, eager, compiled)}


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
