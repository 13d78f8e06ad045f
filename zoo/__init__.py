"""Prebuilt, verified TensorRT engines of frozen vision backbones.

Importing this package loads neither torch nor an inference runtime; the first engine that runs
does. Engines are built by the ``builders`` package, which is only in the repository's checkout. ::

    import zoo

    zoo.list_models("resnet*")
    extractor = zoo.load("resnet50")
    features = extractor(["cat.jpg", "dog.jpg"])  # (2, 2048), float32

Features are cached, and heads trained on them, with :mod:`zoo.caft`. Every error that users can
meet is a ``zoo.ZooError``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.util.version import __version__ as __version__

if TYPE_CHECKING:
    from zoo.caft.cache import FeatureCache as FeatureCache
    from zoo.caft.features import cache_features as cache_features
    from zoo.caft.head import Head as Head
    from zoo.caft.train import train_head as train_head
    from zoo.client.models import list_models as list_models
    from zoo.inference.extractor import load as load
    from zoo.util.errors import ZooError as ZooError

_MODULES = {
    "FeatureCache": "zoo.caft.cache",
    "Head": "zoo.caft.head",
    "ZooError": "zoo.util.errors",
    "cache_features": "zoo.caft.features",
    "list_models": "zoo.client.models",
    "load": "zoo.inference.extractor",
    "train_head": "zoo.caft.train",
}
__all__ = [
    "FeatureCache",
    "Head",
    "ZooError",
    "__version__",
    "cache_features",
    "list_models",
    "load",
    "train_head",
]


def __getattr__(name: str) -> Any:
    """Imports public names on first use, so that ``import zoo`` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Returns the public names, for ``dir(zoo)`` and completion."""
    return sorted(__all__)
