"""Trains a linear head with scikit-learn's logistic regression, without torch."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from zoo.caft.cache import FeatureCache
from zoo.caft.settings import Fitted, Settings
from zoo.caft.split import Split
from zoo.util.errors import HeadError, MissingPackageError


def fit_sklearn(
    cache: FeatureCache, split: Split, mean: Any, scale: Any, settings: Settings
) -> Fitted:
    """Fits a logistic regression on the training samples, which are all loaded into memory.

    Args:
        cache: Features and labels.
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
    features = np.asarray(cache.features[cache.rows_of(split.train)], np.float32)
    features = (features - mean) * scale
    labels = np.repeat(cache.labels[split.train], cache.views)
    started = time.perf_counter()
    with warnings.catch_warnings():  # it takes many classes for numbers to be predicted
        warnings.filterwarnings("ignore", "The number of unique classes")
        model = LogisticRegression(
            C=1 / max(settings.weight_decay, 1e-12), max_iter=20 * settings.epochs
        ).fit(features, labels)
    seconds = time.perf_counter() - started
    return Fitted(layers=(_layer(model, len(cache.label_names)),), seconds=seconds)


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
