"""CPU engines that run, small enough for any test, and their golden files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from builders.photos.edge import edge_batch
from builders.verify.edges import edge_features
from support import records
from support.make_toy import network
from support.signed_repository import Signed
from zoo.inference.preprocess import normalise
from zoo.runtime.onnxruntime import OnnxRuntimeSession
from zoo.schema.records import BuildRecord

PREPROCESS = records.small_preprocess()


def engine_bytes(channels: int = 8) -> bytes:
    """A network that ONNX Runtime loads."""
    return bytes(network([("conv", 3, channels)]).SerializeToString(deterministic=True))


def other_engine_bytes() -> bytes:
    """A network of the same shape that computes something else."""
    model = onnx.load_model_from_string(engine_bytes())
    weights = model.graph.initializer[0]
    weights.raw_data = np.frombuffer(weights.raw_data, np.float32)[::-1].copy().tobytes()
    return bytes(model.SerializeToString(deterministic=True))


def golden_bytes(engine: bytes, folder: Path) -> bytes:
    """The golden file of a network, as an export writes it."""
    path = folder / "golden-engine"
    path.write_bytes(engine)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    with OnnxRuntimeSession(path, 16, threads=1) as session:
        features = session.features(normalise(images, PREPROCESS))
        edges = edge_features(session.features, edge_batch(PREPROCESS, (32, 32)), 5)
    file = io.BytesIO()
    np.savez(
        file, images=images, features=features, edge_features=np.stack([row[0] for row in edges])
    )
    return file.getvalue()


def build_real(
    signed: Signed, model: str = "m", engine: bytes | None = None, **changes: Any
) -> BuildRecord:
    """Puts a CPU engine that runs into a repository, with its golden file."""
    content = engine_bytes() if engine is None else engine
    golden = changes.pop("golden", None) or golden_bytes(engine_bytes(), signed.folder)
    return signed.build(model, content, golden=signed.blob(golden), **changes)
