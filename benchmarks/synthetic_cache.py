"""Feature caches of random rows, of any size, as a pass would write them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from zoo.caft.augment import Augmentation
from zoo.caft.card import Identity
from zoo.caft.decode import Decoded
from zoo.caft.sample import Sample
from zoo.caft.writer import CacheWriter
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes

AT_ONCE = 10_000
"""Samples per batch that is written."""


def identity(width: int) -> Identity:
    """Returns the identity of a cache that no engine made."""
    return Identity(
        model="synthetic",
        engine="0" * 64,
        target="cpu-ort1.22-fp32",
        preprocess=Preprocess(
            input_size=224,
            crop=0.875,
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        feature_dim=width,
        storage="fp32",
        dry_run=True,
        augmentation=Augmentation(),
    )


class SyntheticSource:
    """A data set whose images are their numbers.

    Args:
        samples: Number of samples.
        classes: Number of classes.
    """

    def __init__(self, samples: int, classes: int) -> None:
        self._samples = samples
        self._classes = classes

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[Sample]:
        for number in range(self._samples):
            label = f"{number % self._classes:05d}"
            name = f"train/{label}/{number:09d}.jpg"
            read = partial(number.to_bytes, 8, "big")
            yield Sample(name=name, label=label, read=read, rereadable=True)


def _outcome(sample: Sample) -> Decoded:
    return Decoded(sample=sample, label=sample.label, sha256=sha256_bytes(sample.read()))


def write_cache(folder: Path, rows: int, width: int, classes: int = 100) -> Path:
    """Writes a finished cache; the features of a class lie around a centre of their own."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(classes, width)).astype(np.float32)
    writer = CacheWriter(folder, identity(width), "synthetic")
    samples = iter(SyntheticSource(rows, classes))
    while batch := list(islice(samples, AT_ONCE)):
        noise = random.standard_normal((len(batch), width), np.float32)
        noise += centres[[int(str(sample.label)) for sample in batch]]
        writer.append([_outcome(sample) for sample in batch], noise)
    writer.close(complete=True)
    return folder
