"""scikit-learn's way to a linear head: logistic regression. No torch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from zoo.caft.cache import FeatureCache
from zoo.caft.settings import Fitted, Settings
from zoo.caft.split import Split
from zoo.util.errors import HeadError, MissingPackageError


def fit_sklearn(
    cache: FeatureCache, split: Split, mean: Any, scale: Any, settings: Settings
) -> Fitted:
    """Fits a logistic regression on the training samples, all of them in memory.

    Args:
        cache: Features and labels.
        split: It learns from ``train``.
        mean: Subtracted from features.
        scale: Multiplied with them after that.
        settings: ``weight_decay`` is the strength of its penalty, ``epochs`` times 20 its
            iterations at most.

    Raises:
        MissingPackageError: scikit-learn is not installed.
        HeadError: A head of another kind than ``linear`` is wanted.
    """
    if settings.kind != "linear":
        raise HeadError(
            f"scikit-learn trains linear heads here, not {settings.kind}",
            hint="take --solver adamw or lbfgs for it",
        )
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingPackageError(
            "scikit-learn is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    features = np.asarray(cache.features[cache.rows_of(split.train)], np.float32)
    features = (features - mean) * scale
    labels = np.repeat(cache.labels[split.train], cache.views)
    started = time.perf_counter()
    found = LogisticRegression(
        C=1 / max(settings.weight_decay, 1e-12), max_iter=20 * settings.epochs
    ).fit(features, labels)
    seconds = time.perf_counter() - started
    return Fitted(layers=(_layer(found, len(cache.label_names)),), seconds=seconds)


def _layer(found: Any, classes: int) -> tuple[Any, Any]:
    """Returns weight and bias with a row for each class, in the cache's numbering."""
    weight, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # it keeps one row for two classes
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    # A class without a labelled sample is never predicted.
    full = np.zeros((classes, weight.shape[1]), np.float32)
    offset = np.full(classes, -1e9, np.float32)
    full[found.classes_], offset[found.classes_] = weight, bias
    return full, offset
