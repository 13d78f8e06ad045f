"""Prebuilt, proven TensorRT engines of frozen vision backbones.

This package says what exists, where it lies and how it is used. It imports neither torch nor any
inference runtime until an engine is run. How engines come to be is the ``builders`` package, which
lives in the checkout only.
"""

__version__ = "0.1.0"
