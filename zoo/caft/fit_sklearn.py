"""Trains a linear head with scikit-learn's logistic regression, without torch."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from zoo.caft.cache import FeatureCache
from zoo.caft.fit_in_chunks import fit_in_chunks
from zoo.caft.rows import read_rows
from zoo.caft.settings import Fitted, Settings
from zoo.caft.split import Split
from zoo.caft.targets import Targets
from zoo.util.errors import HeadError, MissingPackageError

_IN_MEMORY = 512 << 20  # most bytes of features and outputs that scikit-learn may hold


def fit_sklearn(
    cache: FeatureCache,
    targets: Targets,
    split: Split,
    mean: Any,
    scale: Any,
    settings: Settings,
) -> Fitted:
    """Fits a logistic regression on the training samples.

    scikit-learn needs their features and several matrices of ``(rows, classes)`` in memory. Where
    that is too much, the same function is minimised in chunks (:mod:`zoo.caft.fit_in_chunks`).

    Args:
        cache: Features.
        targets: Their classes.
        split: The split; ``train`` is used.
        mean: Subtracted from the features.
        scale: Then multiplied with them.
        settings: ``weight_decay`` is the strength of the penalty; ``epochs`` times 20 is the
            maximum number of iterations.

    Raises:
        MissingPackageError: scikit-learn is not installed.
        HeadError: The head's kind is not ``linear``.
    """
    if settings.kind != "linear":
        raise HeadError(
            f"the solver sklearn supports linear heads only, not {settings.kind}",
            hint="use --solver adamw or lbfgs",
        )
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingPackageError(
            "scikit-learn is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    labels = np.repeat(targets.values[split.train], cache.views)
    started = time.perf_counter()
    width, classes = cache.identity.feature_dim, len(targets.names)
    if 4 * len(labels) * (width + 3 * classes) > _IN_MEMORY:
        layer = fit_in_chunks(cache, targets, split.train, mean, scale, settings)
        return Fitted(layers=(layer,), seconds=time.perf_counter() - started)
    features = (read_rows(cache, cache.rows_of(split.train)) - mean) * scale
    with warnings.catch_warnings():  # it takes many classes for numbers to be predicted
        warnings.filterwarnings("ignore", "The number of unique classes")
        model = LogisticRegression(
            C=1 / max(settings.weight_decay, 1e-12), max_iter=min(20 * settings.epochs, 1 << 30)
        ).fit(features, labels)
    seconds = time.perf_counter() - started
    return Fitted(layers=(_layer(model, classes),), seconds=seconds)


def _layer(model: Any, classes: int) -> tuple[Any, Any]:
    """Returns weight and bias with a row per class, in the cache's numbering."""
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    # A class without a labelled sample is never predicted.
    full = np.zeros((classes, weight.shape[1]), np.float32)
    offset = np.full(classes, -1e9, np.float32)
    full[model.classes_], offset[model.classes_] = weight, bias
    return full, offset
