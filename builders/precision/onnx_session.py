"""Runs an ONNX as it was exported, in ONNX Runtime on the CPU: the farm's own look at it.

This is no engine. What the CPU cannot compute in, it computes in fp32 and rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoo.runtime.onnxruntime import session_options

if TYPE_CHECKING:
    import onnx

Images = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]


def open_onnx(model: onnx.ModelProto | Path) -> Callable[[Images], Features]:
    """Opens an ONNX.

    Args:
        model: In memory, or a file. Of a type below fp32 as
            :func:`~builders.precision.typed.rounded_in_fp32` gives it.

    Returns:
        From ready input, ``(N, 3, H, W)`` float32, to features, ``(N, feature_dim)`` float32.
    """
    import onnxruntime

    options = session_options()
    # As exported: optimising is the backend's work, for a large model it takes long, and more of
    # it would take a cast there and back for nothing.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()

    def run(images: Images) -> Features:
        (features,) = session.run(None, {image.name: images})
        return np.asarray(features, np.float32)

    return run
