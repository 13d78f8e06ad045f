"""Cached-activation fine-tuning: a frozen backbone runs once, heads train on its features.

Modules, in the order of the work: ``sample``, ``labels``, ``notes``, ``sources``, ``lists``,
``tars``, ``tar_files`` and ``datasets`` (the images of a data set), ``content``, ``file_read``,
``stamps``, ``recognise`` and ``same_source`` (which of them a cache has), ``decode``,
``decode_process``, ``file_reader``, ``read_process``, ``gpu_batches`` and ``feed`` (images to an
engine's batches), ``runs``, ``spread``, ``handover`` and ``engine_process`` (batches through the
engine, on one GPU or several), ``shared_memory`` and ``mapped_memory`` (what processes hand over),
``wire``, ``packing``, ``part_worker``, ``worker_kinds``, ``remote_engine``, ``roster``,
``workers``, ``parts``, ``sending``, ``answers``, ``crew``, ``dispatch`` and ``cluster_runs`` (on
the workers of a cluster), ``features`` (the pass), ``files``, ``arrays``, ``growing``, ``writer``,
``arrange`` and ``cache`` (a directory of plain arrays), ``tables``, ``archives`` and ``frames``
(its rows for other programs), ``neighbours`` and ``map`` (what is similar), ``task``, ``targets``
and ``targets_file`` (what to predict), ``split``, ``rows``, ``train``, ``fit_sklearn`` and
``fit_in_chunks`` (training), ``report`` and ``scores`` (how good a head is), ``probe`` (how good
the features are), ``head`` (the trained head), ``predictions`` (what it predicts of photos),
``progress`` (how far a pass is), ``onnx_export`` (backbone and head as one file). ::

    from zoo.caft import FeatureCache, cache_features, train_head

    cache_features("photos/", extractor, "cache/")
    head, report = train_head(FeatureCache("cache/"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.caft.cache import FeatureCache as FeatureCache
    from zoo.caft.features import cache_features as cache_features
    from zoo.caft.head import Head as Head
    from zoo.caft.train import train_head as train_head

_MODULES = {
    "FeatureCache": "zoo.caft.cache",
    "Head": "zoo.caft.head",
    "cache_features": "zoo.caft.features",
    "train_head": "zoo.caft.train",
}
__all__ = ["FeatureCache", "Head", "cache_features", "train_head"]


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that the command line starts fast."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'zoo.caft' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Returns the public names, for ``dir(zoo.caft)`` and completion."""
    return sorted(__all__)
