"""ONNX Runtime: a portable optimised model as the CPU's engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from typing_extensions import assert_never

from builders.backends.base import Facts, Options, read_options
from zoo.runtime.onnxruntime import session_options
from zoo.schema.keys import BuildInputs
from zoo.schema.targets import Precision, Toolchain
from zoo.util.errors import BuildError

if TYPE_CHECKING:
    import onnx

_INT8_OPERATORS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
_INT8_SHARE = 0.9  # of what the ONNX quantises, that an engine's own operators must cover


class OnnxRuntimeOptions(Options):
    """Builder options of ONNX Runtime.

    Attributes:
        graph_optimization: ``extended`` fuses operators; the level above writes nodes for this
            machine's own instruction set into the model, which would not be portable.
    """

    graph_optimization: Literal["extended"] = "extended"


class OnnxRuntimeBackend:
    """Optimises a model ahead of time, with what holds on every CPU."""

    def options(self, toolchain: Toolchain, asked: Mapping[str, str]) -> dict[str, Any]:
        """Returns the builder options; see :class:`~builders.backends.base.Backend`."""
        return read_options(OnnxRuntimeOptions(), toolchain, asked)

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
            raise BuildError(f"onnxruntime does not take the ONNX: {error}") from error
        return read_engine(engine, inputs, onnx)


def read_engine(engine: Path, inputs: BuildInputs, source: Path) -> Facts:
    """Reads operators and weight types from an optimised model.

    Args:
        engine: The optimised model.
        inputs: What it was made from.
        source: The ONNX.

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
        case Precision.FP16 | Precision.BF16:
            raise BuildError(
                f"ONNX Runtime computes in fp32 on CPUs, not in {inputs.precision}: the name would "
                "not be true"
            )
        case _:
            assert_never(inputs.precision)
    values = {
        "weights": dict(elements),
        "operators": dict(operators.most_common()),
        "int8_operators": quantised,
    }
    return Facts(values=values, precision_proven=True)


def _check_fp32(elements: Counter[str]) -> None:
    floats = {name for name in elements if "float" in name}
    if floats != {"float"} or elements["int8"] or elements["uint8"]:
        raise BuildError(f"an fp32 engine whose weights are {', '.join(sorted(elements))}")


def _check_int8(elements: Counter[str], made: int, source: onnx.ModelProto) -> None:
    asked = _quantised_in(source)
    if made < _INT8_SHARE * asked or not elements["int8"] + elements["uint8"]:
        # A pair of Q and DQ that nothing fused computes in fp32, at a loss.
        raise BuildError(
            f"an int8 engine that computes in fp32: of {asked} operators that the ONNX "
            f"quantises, ONNX Runtime runs {made} in int8"
        )


def _quantised_in(model: onnx.ModelProto) -> int:
    """Returns how many operators of an ONNX have quantised weights."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    return sum(
        node.op_type in ("Conv", "Gemm", "MatMul")
        and made_by.get(node.input[1]) == "DequantizeLinear"
        for node in model.graph.node
    )


BACKEND = OnnxRuntimeBackend()
