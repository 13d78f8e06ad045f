"""ONNX Runtime: the engine for CPUs is a portable, optimised model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from typing_extensions import assert_never

from builders.backends.base import Facts, Options, read_options
from zoo.runtime.onnxruntime import session_options
from zoo.schema.keys import BuildInputs
from zoo.schema.measurements import EngineFacts
from zoo.schema.targets import Precision, Toolchain
from zoo.util.causes import cause_of
from zoo.util.errors import BuildError

if TYPE_CHECKING:
    import onnx

_INT8_OPERATORS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
_INT8_SHARE = 0.9  # of the operators that the ONNX quantises must run in int8


class OnnxRuntimeOptions(Options):
    """Builder options of ONNX Runtime.

    Attributes:
        graph_optimization: ``extended`` fuses operators; the next level writes nodes for this
            machine's instruction set into the model, which would not be portable.
    """

    graph_optimization: Literal["extended"] = "extended"


class OnnxRuntimeBackend:
    """Optimises a model ahead of time, with optimisations that are valid on every CPU."""

    def options(self, toolchain: Toolchain, requested: Mapping[str, str]) -> OnnxRuntimeOptions:
        """Returns the builder options; see :class:`~builders.backends.base.Backend`."""
        return read_options(OnnxRuntimeOptions(), toolchain, requested)

    def build(
        self,
        onnx: Path,
        inputs: BuildInputs,
        engine: Path,
        *,
        parameters: int,
        timing_cache: Path | None = None,
    ) -> Facts:
        """Writes the optimised model; see :class:`~builders.backends.base.Backend`."""
        import onnxruntime

        options = session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(engine)
        try:
            onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own for each status
            raise BuildError(f"ONNX Runtime can't load the ONNX: {cause_of(error)}") from error
        return read_engine(engine, inputs, onnx)


def read_engine(engine: Path, inputs: BuildInputs, source: Path) -> Facts:
    """Reads operators and weight types from an optimised model.

    Args:
        engine: The optimised model.
        inputs: The inputs of its build.
        source: The ONNX that it was made from.

    Raises:
        BuildError: It does not run in the precision of its name.
    """
    import onnx

    model = onnx.load(engine)
    elements: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        elements[kind] += int(np.prod(tensor.dims))
    operators = Counter(node.op_type for node in model.graph.node)
    quantised = {name: operators[name] for name in _INT8_OPERATORS if operators[name]}
    match inputs.precision:
        case Precision.FP32:
            _check_fp32(elements)
        case Precision.INT8:
            _check_int8(elements, sum(quantised.values()), onnx.load(source))
        case Precision.FP16 | Precision.BF16:  # the targets table has neither for it
            raise BuildError(f"ONNX Runtime computes in fp32 on CPUs, never in {inputs.precision}")
        case _:
            assert_never(inputs.precision)
    values = EngineFacts(
        weights=dict(elements),
        operators=dict(operators.most_common()),
        int8_operators=quantised,
    )
    return Facts(values=values, precision_proven=True)


def _check_fp32(elements: Counter[str]) -> None:
    floats = {name for name in elements if "float" in name}
    if floats != {"float"} or elements["int8"] or elements["uint8"]:
        raise BuildError(f"the fp32 engine has weights of type {', '.join(sorted(elements))}")


def _check_int8(elements: Counter[str], in_int8: int, source: onnx.ModelProto) -> None:
    quantised = _quantised_in(source)
    if in_int8 < _INT8_SHARE * quantised or not elements["int8"] + elements["uint8"]:
        # An operator whose Q/DQ pairs were not fused computes in fp32, and more slowly.
        raise BuildError(
            f"the int8 engine computes in fp32: ONNX Runtime runs {in_int8} of the {quantised} "
            "operators that the ONNX quantises in int8"
        )


def _quantised_in(model: onnx.ModelProto) -> int:
    """Returns the number of operators with quantised weights."""
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    return sum(
        node.op_type in ("Conv", "Gemm", "MatMul")
        and producer.get(node.input[1]) == "DequantizeLinear"
        for node in model.graph.node
    )


BACKEND = OnnxRuntimeBackend()
