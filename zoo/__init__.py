"""Prebuilt, verified TensorRT engines of frozen vision backbones.

Importing this package loads neither torch nor an inference runtime; the first engine that runs
does. Engines are built by the ``builders`` package, which is only in the repository's checkout. ::

    import zoo

    extractor = zoo.load("resnet50")
    features = extractor(["cat.jpg", "dog.jpg"])  # (2, 2048), float32

Every error that users can meet is a ``zoo.ZooError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.util.version import __version__ as __version__

if TYPE_CHECKING:
    from zoo.inference.extractor import load as load
    from zoo.util.errors import ZooError as ZooError


def __getattr__(name: str) -> Any:
    """Imports public names on first use, so that ``import zoo`` stays light."""
    if name == "load":
        from zoo.inference.extractor import load

        return load
    if name == "ZooError":
        from zoo.util.errors import ZooError

        return ZooError
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
