"""The engine beside the same network in PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.bench.child import Child
from benchmarks.bench.ground import MODEL, Engine, Ground
from benchmarks.bench.results import Ratio, Section
from benchmarks.bench.turns import in_turns
from zoo.util.errors import RunError

ABOUT = (
    "One batch of random images, each contestant in a process of its own that has opened the "
    "network and warmed up, all cores, fp32. Their features agree (cosine of each row above "
    "0.9999). Memory is the peak of the process, imports included."
)
_FULL, _QUICK = (MODEL, "resnet50", "mobilenetv3_small_100"), (MODEL,)
_BATCH = 4
_COSINE = 0.9999
_PEERS = ("eager", "compiled", "onnxruntime", "openvino")


def measure(ground: Ground) -> Section:
    """Measures the engines."""
    skipped = []
    if ground.peers.missing:
        skipped.append(ground.peers.lacks("openvino"))
    peers = [name for name in _PEERS if name != "openvino" or not skipped]
    models = _QUICK if ground.quick else _FULL
    ratios = [ratio for model in models for ratio in _of_model(ground, model, peers)]
    return Section(
        name="engine", title="The engine", about=ABOUT, ratios=tuple(ratios),
        skipped=tuple(skipped),
    )  # fmt: skip


def _of_model(ground: Ground, model: str, peers: list[str]) -> list[Ratio]:
    engine, folder = ground.engine(model), ground.folder(f"engine-{model}")
    work = write_work(ground, engine, folder, repeats=2 if ground.quick else 5)
    with ExitStack() as stack:
        children = {
            way: stack.enter_context(Child([_python(ground, way), _SCRIPT, way, work]))
            for way in ("ours", *peers)
        }
        _check(folder, [*children])
        runs = in_turns({way: child.run for way, child in children.items()}, ground.rounds(9))
    what = f"{model}, batch {_BATCH}"
    start = "" if model == MODEL else f"{model}."
    return [
        Ratio.of(f"{start}{way}", what, children[way].name, runs["ours"], runs[way])
        for way in peers
    ]


_SCRIPT = Path(__file__).with_name("engine_ways.py")


def _python(ground: Ground, way: str) -> Path:
    return ground.peers.python if way == "openvino" else Path(sys.executable)


def write_work(ground: Ground, engine: Engine, folder: Path, repeats: int) -> Path:
    """Writes what the contestants read; returns the file."""
    record = folder / "record.json"
    record.write_text(engine.record.model_dump_json())
    preprocess = engine.record.inputs.preprocess
    shape = (_BATCH, 3, preprocess.height, preprocess.width)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    np.save(folder / "images.npy", images)
    work = folder / "work.json"
    files = {
        "engine": engine.file, "onnx": engine.onnx, "manifest": engine.manifest, "record": record,
        "store": ground.store, "images": folder / "images.npy",
    }  # fmt: skip
    paths = {name: str(path.resolve()) for name, path in files.items()}
    work.write_text(json.dumps({**paths, "repeats": repeats}))
    return work


def _check(folder: Path, ways: list[str]) -> None:
    """Checks that all contestants did the same work."""
    first = np.load(folder / "ours.npy")
    for way in ways:
        rows = np.load(folder / f"{way}.npy")
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(rows, axis=1)
        cosine = float(((first * rows).sum(axis=1) / norms).min())
        if not cosine > _COSINE:
            raise RunError(f"{way} gives other features than the engine: cosine {cosine}")
