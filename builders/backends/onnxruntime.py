"""ONNX Runtime: a portable optimised model as the CPU's engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from builders.backends.base import Facts, Options, read_options
from zoo.errors import BuildError
from zoo.key import BuildInputs
from zoo.target import Toolchain


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

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(engine)
        try:
            onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own for each status
            raise BuildError(f"onnxruntime does not take the ONNX: {error}") from error
        return read_engine(engine, inputs)


def read_engine(engine: Path, inputs: BuildInputs) -> Facts:
    """Reads operators and weight types from an optimised model.

    Raises:
        BuildError: The weights are not in the precision of the engine's name.
    """
    import onnx

    model = onnx.load(engine)
    types = Counter(
        onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        for tensor in model.graph.initializer
    )
    operators = Counter(node.op_type for node in model.graph.node)
    floats = {name for name in types if "float" in name}
    if inputs.precision == "fp32" and floats != {"float"}:
        raise BuildError(f"an fp32 engine whose weights are {', '.join(sorted(floats))}")
    values = {"weights": dict(types), "operators": dict(operators.most_common())}
    return Facts(values=values, precision_proven=True)


BACKEND = OnnxRuntimeBackend()
