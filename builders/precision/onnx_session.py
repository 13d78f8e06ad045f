"""Runs an exported ONNX in ONNX Runtime on the CPU, to evaluate it before any engine is built.

The CPU lacks kernels for lower precisions: such a model runs in fp32 with explicit rounding.
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


def open_onnx(
    model: onnx.ModelProto | Path, *, rounds: bool = True
) -> Callable[[Images], Features]:
    """Opens an ONNX.

    Args:
        model: A model or its file; a model below fp32 must come from
            :func:`~builders.precision.typed.rounded_in_fp32`.
        rounds: Whether it may have explicit rounding. An export in fp32 has none: it runs with the
            layouts that this processor prefers, which convolutions are faster in.

    Returns:
        A function from normalised images, ``(N, 3, H, W)`` float32, to features,
        ``(N, feature_dim)`` float32.
    """
    import onnxruntime

    options = session_options()
    level = onnxruntime.GraphOptimizationLevel
    # Higher levels remove pairs of casts, which would undo the explicit rounding.
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if rounds else level.ORT_ENABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()

    def run(images: Images) -> Features:
        (features,) = session.run(None, {image.name: images})
        return np.asarray(features, np.float32)

    return run
