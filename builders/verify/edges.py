"""Compares an engine's features of edge pictures with PyTorch's.

Flat pictures have no meaningful relative numbers: PyTorch's own features may be zero, and a black
and a grey picture may have the same. Their errors are measured against the features of ordinary
photos instead, and those of a picture that PyTorch itself has no finite features of not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.photos.edge import EDGE_PICTURES
from zoo.schema.measurements import EdgeNumbers

Features = npt.NDArray[Any]


def edge_features(
    run: Callable[[npt.NDArray[np.float32]], Features],
    pictures: npt.NDArray[np.float32],
    batch: int,
) -> list[Features]:
    """Runs the edge pictures at a batch size, each at least once.

    Returns:
        The rows of each picture.
    """
    count = len(pictures)
    rows: list[list[Features]] = [[] for _ in range(count)]
    for start in range(0, count, batch):
        numbers = [number % count for number in range(start, start + batch)]
        for number, row in zip(numbers, run(pictures[numbers]), strict=True):
            rows[number].append(row)
    return [np.stack(of_picture) for of_picture in rows]


def compare_edges(
    actual: list[Features], expected: Features | None, golden: Features
) -> dict[str, EdgeNumbers]:
    """Measures how far features of edge pictures are from PyTorch's.

    Args:
        actual: The engine's features, the rows of each picture.
        expected: PyTorch's, ``(5, feature_dim)``; None where an old golden file has none. Then only
            finite features are asked for.
        golden: PyTorch's features of the golden photos, ``(N, feature_dim)``.

    Returns:
        The numbers by name of the picture.
    """
    ordinary = float(np.median(np.linalg.norm(golden.astype(np.float64), axis=1)))
    found: dict[str, EdgeNumbers] = {}
    for number, name in enumerate(EDGE_PICTURES):
        rows = actual[number].astype(np.float64)
        finite = bool(np.isfinite(rows).all())
        if expected is None:
            found[name] = EdgeNumbers.model_validate({"finite": finite})
            continue
        reference = expected[number].astype(np.float64)
        if not np.isfinite(reference).all():
            continue
        stated: dict[str, object] = {"finite": finite}
        if finite:
            scale = max(float(np.linalg.norm(reference)), ordinary, 1e-30)
            stated["error"] = float(np.linalg.norm(rows - reference, axis=1).max()) / scale
        found[name] = EdgeNumbers.model_validate(stated)
    return found
