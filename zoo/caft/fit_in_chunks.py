"""Logistic regression in chunks of rows, whose memory does not grow with rows times classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.memory import check_memory
from zoo.caft.rows import chunk_of, read_rows
from zoo.caft.settings import Settings
from zoo.caft.targets import Targets
from zoo.util.errors import HeadError

_PAIRS_BYTES = 256 << 20  # most memory of the steps that L-BFGS remembers


def fit_in_chunks(
    cache: FeatureCache,
    targets: Targets,
    samples: npt.NDArray[np.int64],
    mean: Any,
    scale: Any,
    settings: Settings,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Minimises what scikit-learn's multinomial ``LogisticRegression`` minimises.

    Args:
        cache: Features.
        targets: Their classes.
        samples: The training samples.
        mean: Subtracted from the features.
        scale: Then multiplied with them.
        settings: ``weight_decay`` and ``epochs``, as for scikit-learn.

    Returns:
        Weight and bias, with a row per class; a class that is not in training is never predicted.

    Raises:
        HeadError: There is not enough memory, or the minimum is not finite.
    """
    from scipy.optimize import minimize

    rows, labels = cache.rows_of(samples), np.repeat(targets.values[samples], cache.views)
    present, which = np.unique(labels, return_inverse=True)
    width, classes = cache.identity.feature_dim, len(targets.names)
    size = len(present) * (width + 1)
    pairs = max(3, min(10, _PAIRS_BYTES // (16 * size)))
    check_memory(8 * size * (2 * pairs + 10), f"a probe with {size:,} weights", "use fewer classes")
    step = chunk_of(max(width, len(present)))
    decay = max(settings.weight_decay, 1e-12)

    def loss_and_gradient(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        table = flat.reshape(len(present), width + 1)
        weight, bias = table[:, :-1].astype(np.float32), table[:, -1].astype(np.float32)
        gradient = np.zeros_like(table)
        gradient[:, :-1] = decay / len(rows) * table[:, :-1]
        loss = decay / (2 * len(rows)) * float(np.square(table[:, :-1]).sum())
        for start in range(0, len(rows), step):
            part = which[start : start + step]
            features = (read_rows(cache, rows[start : start + step]) - mean) * scale
            logits = features @ weight.T + bias
            logits -= logits.max(axis=1, keepdims=True)
            own = logits[np.arange(len(part)), part]
            np.exp(logits, out=logits)
            totals = logits.sum(axis=1, keepdims=True)
            loss += float((np.log(totals[:, 0]) - own).sum(dtype=np.float64)) / len(rows)
            logits /= totals
            logits[np.arange(len(part)), part] -= 1
            logits /= len(rows)
            gradient[:, :-1] += logits.T @ features
            gradient[:, -1] += logits.sum(axis=0)
        return loss, gradient.reshape(-1)

    found = minimize(
        loss_and_gradient,
        np.zeros(size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": min(20 * settings.epochs, 1 << 30), "maxcor": pairs, "gtol": 1e-4},
    )
    if not np.isfinite(found.x).all():
        raise HeadError("logistic regression diverged: its weights are not finite numbers")
    table = found.x.reshape(len(present), width + 1)
    weight, bias = np.zeros((classes, width), np.float32), np.full(classes, -1e9, np.float32)
    weight[present], bias[present] = table[:, :-1], table[:, -1]
    return weight, bias
