"""Measures the values of a network's tensors on real images.

Operators added to the graph compute maxima, sums and samples, so that no whole activation leaves
ONNX Runtime and a run needs no more memory than usual.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from builders.precision.graph import Graph
from zoo.runtime.onnxruntime import session_options
from zoo.util.errors import PrecisionError

if TYPE_CHECKING:
    import onnx

BINS = 2**15
"""Bins of a histogram: magnitudes rounded down to bfloat16, the same bins for every image."""

_SAMPLES = 2**16  # elements of a tensor that are binned, per image
_SUMMING = {"GlobalAveragePool": 1, "ReduceMean": 1, "ReduceSum": 1, "LayerNormalization": 2}
"""Operators that sum over a tensor, and the power of the elements that they sum."""

_DROP_NAN = ("GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin")
"""Operators that lose a NaN on a CPU, in this project's measurements, too: behind them nothing
shows that there was one."""


@dataclass
class Measured:
    """Measurements over all images.

    Attributes:
        peaks: Value to its largest magnitude.
        lows: Sampled value to its minimum.
        sums: Summing node to an upper bound of its partial sums.
        histograms: Value to the counts of its sampled magnitudes in each of :data:`BINS`.
    """

    peaks: dict[str, float] = field(default_factory=dict)
    lows: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)


def magnitudes() -> npt.NDArray[np.float32]:
    """Returns the lower edge of each bin."""
    return (np.arange(BINS, dtype=np.uint32) << 16).view(np.float32)


def measure(
    model: onnx.ModelProto,
    batches: Iterable[npt.NDArray[np.float32]],
    sampled: Collection[str] = (),
) -> Measured:
    """Runs images through a network and measures its tensors.

    Args:
        model: The fp32 network, with the shape of every value and a name for every node.
        batches: Normalised images, ``(N, 3, H, W)`` each.
        sampled: Values to make histograms of.

    Raises:
        PrecisionError: A value that a maximum is taken of has NaN, which the maximum would hide.
    """
    import onnxruntime

    instrumented, groups = _instrument(Graph(model), set(sampled))
    options = session_options()
    # Measuring operators then run as early as possible, and activations are freed as usual.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    session = onnxruntime.InferenceSession(
        instrumented.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    del instrumented
    measured = Measured()
    (image,) = session.get_inputs()
    outputs = [value.name for value in session.get_outputs()]
    names = [name for name in outputs if name in groups]
    for batch in batches:
        for name, array in zip(names, session.run(names, {image.name: batch}), strict=True):
            kind, value = groups[name]
            if kind == "sample":
                bins = np.ascontiguousarray(np.abs(array)).view(np.uint32) >> 16
                counts = np.bincount(bins, minlength=BINS)[:BINS]
                measured.histograms[value] = measured.histograms.get(value, 0) + counts
            elif kind == "low":
                measured.lows[value] = min(measured.lows.get(value, 0.0), float(array))
            elif kind == "nan":
                _refuse_nan(value, array)
            else:
                maxima = measured.peaks if kind == "peak" else measured.sums
                maxima[value] = max(maxima.get(value, 0.0), float(array))
    return measured


def _refuse_nan(value: str, total: npt.NDArray[np.float32]) -> None:
    """Refuses a value whose magnitudes have no sum."""
    if np.isnan(total):
        raise PrecisionError(
            f"the fp32 network computes NaN on a calibration image: '{value}', which a maximum "
            "follows that hides it; correct the network or its weights"
        )


def _instrument(
    graph: Graph, sampled: set[str]
) -> tuple[onnx.ModelProto, dict[str, tuple[str, str]]]:
    """Returns a copy with measuring operators, and the kind and value of each added output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    groups: dict[str, tuple[str, str]] = {}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, npt.NDArray[np.int64]] = {"m:flat": np.array([-1])}

    def add(op: str, inputs: list[str], output: str, **attributes: int) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def publish(name: str, kind: str, value: str, rank: int = 0) -> None:
        groups[name] = (kind, value)
        shape = [None] * rank
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    images = [value.name for value in graph.model.graph.input]
    values = [name for node in graph.nodes for name in node.output if name in graph.shapes]
    for value in (*images, *values):
        magnitude = add("Abs", [value], f"m:abs:{value}")
        publish(add("ReduceMax", [magnitude], f"m:peak:{value}", keepdims=0), "peak", value)
        if value in sampled:
            publish(add("ReduceMin", [value], f"m:low:{value}", keepdims=0), "low", value)
            step = max(1, graph.elements(value) // _SAMPLES) | 1
            constants |= {
                "m:0": np.array([0]),
                "m:end": np.array([2**62]),
                f"m:{step}": np.array([step]),
            }
            flat = add("Reshape", [value, "m:flat"], f"m:flat:{value}")
            every = add("Slice", [flat, "m:0", "m:end", "m:0", f"m:{step}"], f"m:sample:{value}")
            publish(every, "sample", value, rank=1)
    pooled = {node.input[0] for node in graph.nodes if node.op_type in _DROP_NAN}
    for value in (name for name in values if name in pooled):
        total = add("ReduceSum", [f"m:abs:{value}"], f"m:nan:{value}", keepdims=0)
        publish(total, "nan", value)
    for node in graph.nodes:
        power = _SUMMING.get(node.op_type)
        if power is None or node.input[0] not in graph.shapes:
            continue
        rank = len(graph.shapes[node.input[0]])
        axes = f"m:axes:{node.name}"
        constants[axes] = np.array(_axes(graph, node, rank))
        term = f"m:abs:{node.input[0]}"
        if power == 2:
            term = add("Mul", [node.input[0], node.input[0]], f"m:square:{node.name}")
        total = add("ReduceSum", [term, axes], f"m:total:{node.name}", keepdims=0)
        publish(add("ReduceMax", [total], f"m:sum:{node.name}", keepdims=0), "sum", node.name)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()
    )
    return model, groups


def _axes(graph: Graph, node: onnx.NodeProto, rank: int) -> list[int]:
    """Returns the axes that a node sums over."""
    from onnx import numpy_helper

    if node.op_type == "GlobalAveragePool":
        return list(range(2, rank))
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "LayerNormalization":
        first = attributes["axis"].i if "axis" in attributes else -1
        return list(range(first % rank, rank))
    if "axes" in attributes:
        return list(attributes["axes"].ints)
    if len(node.input) > 1 and node.input[1] in graph.weights:
        return [int(axis) for axis in numpy_helper.to_array(graph.weights[node.input[1]])]
    return list(range(rank))
