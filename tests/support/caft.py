"""What the tests of features and heads share: a real engine that is tiny, photos, caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from support.paths import DATA
from support.records import blob, build_inputs, build_record, small_preprocess
from zoo.caft.augment import Augmentation
from zoo.caft.card import Identity
from zoo.caft.decode import Decoded
from zoo.caft.sample import Sample
from zoo.caft.writer import CacheWriter
from zoo.inference.extractor import Extractor
from zoo.runtime.onnxruntime import OnnxRuntimeSession
from zoo.schema.records import BuildRecord
from zoo.util.digest import sha256_bytes

Zoo = Callable[[str], int]
"""Runs a command line of ``zoo``; returns its exit status."""

TOY = DATA / "toy.onnx"
HALF = (0.5, 0.5, 0.5)
PREPROCESS = small_preprocess()


def record(**changes: Any) -> BuildRecord:
    """The record of ``data/toy.onnx``: 32 pixels in, 8 features out."""
    defaults: dict[str, Any] = {
        "inputs": build_inputs(model="toy", preprocess=PREPROCESS),
        "engine": blob(TOY.read_bytes()),
        "feature_dim": 8,
        "licence": "mit",
        "weights": "file",
    }
    return build_record(**{**defaults, **changes})


def toy(**changes: Any) -> Extractor:
    """A real extractor on ONNX Runtime that takes microseconds."""
    return Extractor(
        OnnxRuntimeSession(TOY, 16, threads=1, layouts=True), record(**changes), "", TOY
    )


def photo(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Noise in a colour of its own."""
    random = np.random.default_rng(number)
    tint = random.integers(0, 200, 3)
    pixels = tint + random.integers(0, 56, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def folder(path: Path, classes: int = 3, each: int = 5) -> Path:
    """A folder with a folder of photos for each class."""
    for kind in range(classes):
        (path / f"class{kind}").mkdir(parents=True)
        for number in range(each):
            photo(100 * kind + number).save(path / f"class{kind}" / f"{number}.png")
    return path


def identity(width: int, *, views: int = 1, storage: Any = "fp32") -> Identity:
    made = toy(feature_dim=width)
    return Identity.of(made, storage, Augmentation(count=views - 1))


def outcome(number: int, label: str | None, error: str | None = None) -> Decoded:
    sample = Sample(name=f"{number}.jpg", label=label, read=lambda: b"")
    digest = "" if error else sha256_bytes(str(number).encode())
    return Decoded(sample=sample, label=label, sha256=digest, error=error)


def write_cache(
    path: Path, features: npt.NDArray[np.float32], labels: list[str | None], *, views: int = 1
) -> Path:
    """A finished cache of given rows."""
    writer = CacheWriter(path, identity(features.shape[1], views=views))
    writer.append([outcome(n, label) for n, label in enumerate(labels)], features)
    writer.close(complete=True)
    return path


def clusters(
    classes: int = 4, each: int = 40, width: int = 8, spread: float = 0.5
) -> tuple[npt.NDArray[np.float32], list[str | None]]:
    """Features that a head can learn, in no order of class; some overlap."""
    random = np.random.default_rng(1)
    centres = 2 * random.standard_normal((classes, width))
    kinds = random.permutation(np.repeat(np.arange(classes), each))
    rows = centres[kinds] + spread * random.standard_normal((len(kinds), width))
    return rows.astype(np.float32), [f"class{kind}" for kind in kinds]


def hiding(error: BaseException, folder: Path) -> dict[object, str]:
    """Returns what a golden hides: the test's folder, and reasons that other libraries word."""
    hidden: dict[object, str] = {folder: "FOLDER"}
    if error.__cause__ is not None and str(error.__cause__):
        reason = str(error.__cause__)
        hidden |= {reason: "REASON", reason.splitlines()[0]: "REASON"}
    return hidden
