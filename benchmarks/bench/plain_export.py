"""What one would write to export a timm network: its ONNX, and PyTorch's features for polygraphy.

``plain_export.py MODEL BATCHES`` writes ``m.onnx`` and, for each batch size, ``x4.json`` and
``y4.json`` into the folder that it runs in.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from polygraphy.comparator import RunResults
from polygraphy.json import save_json

from benchmarks.bench.child import ROOT
from builders.export.backbone import import_timm
from zoo.schema.manifest import load_manifest


def main(model: str, batches: list[int]) -> None:
    """Exports a model."""
    manifest = load_manifest(ROOT / "manifests" / f"{model}.toml")
    torch.manual_seed(0)
    network = import_timm().create_model(manifest.arch, num_classes=0).eval()
    height, width = manifest.preprocess.height, manifest.preprocess.width
    random = np.random.default_rng(0)
    images = {
        batch: random.standard_normal((batch, 3, height, width)).astype(np.float32)
        for batch in batches
    }
    torch.onnx.export(
        network, (torch.from_numpy(images[4]),), "m.onnx", input_names=["x"], output_names=["y"],
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}}, dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip
    for batch, x in images.items():
        with torch.inference_mode():
            y = network(torch.from_numpy(x)).numpy()
        save_json([{"x": x}], f"x{batch}.json")
        results = RunResults()
        results.add([{"y": y}], runner_name="pytorch")
        results.save(f"y{batch}.json")


if __name__ == "__main__":
    main(sys.argv[1], [int(batch) for batch in sys.argv[2].split(",")])
