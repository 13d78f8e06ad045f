"""Measures training, probing and evaluating heads of many classes: seconds and peak memory.

The features are drawn around a centre per class. Each measurement runs in a process of its own, so
that its peak is its own: the figure is the growth over the process with everything imported.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo.caft.augment import Augmentation
from zoo.caft.cache import FeatureCache
from zoo.caft.card import Identity
from zoo.caft.decode import Decoded
from zoo.caft.head import Head, HeadCard
from zoo.caft.probe import probe
from zoo.caft.report import judge
from zoo.caft.sample import Sample
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.caft.train import train_head
from zoo.caft.writer import CacheWriter
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes

_MIB = 1 << 20


def write_cache(folder: Path, classes: int, each: int, width: int) -> None:
    """Writes a cache of ``classes * each`` samples, in no order of class."""
    identity = Identity(
        model="benchmark",
        engine="0" * 64,
        target="cpu",
        preprocess=Preprocess(
            input_size=32,
            interpolation="bilinear",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            crop=1.0,
        ),
        feature_dim=width,
        storage="fp32",
        augmentation=Augmentation(),
    )
    random = np.random.default_rng(0)
    centres = random.standard_normal((classes, width)).astype(np.float32)
    kinds = random.permutation(np.repeat(np.arange(classes), each))
    writer = CacheWriter(folder, identity)
    for start in range(0, len(kinds), 4096):
        part = kinds[start : start + 4096]
        noise = 0.5 * random.standard_normal((len(part), width)).astype(np.float32)
        writer.append(
            [_decoded(start + place, int(kind)) for place, kind in enumerate(part)],
            centres[part] + noise,
        )
    writer.close(complete=True)


def _decoded(number: int, kind: int) -> Decoded:
    label = f"class{kind:05}"
    sample = Sample(name=f"{number:07}.jpg", label=label, read=lambda: b"")
    return Decoded(
        sample=sample, label=label, sha256=sha256_bytes(str(number).encode()), error=None
    )


def evaluate(cache: FeatureCache) -> str:
    """Evaluates a head with random weights and writes its report."""
    split = split_samples(cache, val=0, test=0.5, seed=0)
    width, classes = cache.identity.feature_dim, len(cache.label_names)
    weight = np.random.default_rng(0).standard_normal((classes, width)).astype(np.float32)
    head = Head(
        card=HeadCard(identity=cache.identity, kind="linear", labels=cache.label_names),
        mean=np.zeros(width, np.float32),
        scale=np.ones(width, np.float32),
        layers=((weight, np.zeros(classes, np.float32)),),
    )
    started = time.perf_counter()
    report = judge(head, cache, split, [], 0.0)
    predicted = time.perf_counter() - started
    size = len(report.to_json())
    return f"{predicted:.2f} s to evaluate {report.held_out:,} images, report {size / 1e6:.1f} MB"


def train(settings: Settings) -> Callable[[FeatureCache], str]:
    """Returns a function that trains a head."""

    def run(cache: FeatureCache) -> str:
        _, report = train_head(cache, settings)
        return f"{report.accuracy:.1%}, {len(report.curve)} epochs"

    return run


def probed(cache: FeatureCache) -> str:
    """Probes the features."""
    result = probe(cache, test=0.5)
    return f"kNN {result.knn_right / result.held_out:.1%}, linear {result.linear.accuracy:.1%}"


MEASURED: dict[str, Callable[[FeatureCache], str]] = {
    "evaluate": evaluate,
    "train-head --epochs 3": train(Settings(epochs=3)),
    "train-head --epochs 3 --head mlp": train(Settings(epochs=3, kind="mlp")),
    "train-head --epochs 1 --solver lbfgs": train(Settings(epochs=1, solver="lbfgs")),
    "probe": probed,
}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure(name: str, folder: Path) -> None:
    import sklearn.linear_model  # noqa: F401
    import torch  # noqa: F401

    cache = FeatureCache(folder)
    before, started = _peak(), time.perf_counter()
    words = MEASURED[name](cache)
    seconds = time.perf_counter() - started
    print(f"{name:40} {seconds:8.2f} s {_peak() - before:8.0f} MiB  {words}", flush=True)


def main() -> int:
    """Entry point of ``python -m benchmarks.heads``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__)
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=3, help="images a class (default: 3)")
    parser.add_argument("--width", type=int, default=256, help="width of a row (default: 256)")
    parser.add_argument("--only", choices=sorted(MEASURED), help="one measurement")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cache"
        write_cache(folder, options.classes, options.each, options.width)
        size = (folder / "features.npy").stat().st_size / _MIB
        print(
            f"{options.classes:,} classes, {options.classes * options.each:,} images, "
            f"{options.width} features: {size:.0f} MiB"
        )
        for name in [options.only] if options.only else MEASURED:
            process = context.Process(target=_measure, args=(name, folder))
            process.start()
            process.join()
            if process.exitcode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
