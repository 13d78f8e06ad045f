"""Prebuilt, proven TensorRT engines of frozen vision backbones.

This package says what exists, where it lies and how it is used. It imports neither torch nor any
inference runtime until an engine is run. How engines come to be is the ``builders`` package, which
lives in the checkout only. ::

    import zoo

    extractor = zoo.load("resnet50")
    features = extractor(["cat.jpg", "dog.jpg"])  # (2, 2048), float32
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.util.version import __version__ as __version__

if TYPE_CHECKING:
    from zoo.inference.extractor import load as load


def __getattr__(name: str) -> Any:
    """Imports ``load`` on first use, so that importing zoo stays light."""
    if name == "load":
        from zoo.inference.extractor import load

        return load
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
