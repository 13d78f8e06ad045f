"""Converts an fp32 ONNX to fp16 or bf16, with islands of fp32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from builders.precision.guards import vanishing
from zoo.schema.measurements import GraphSummary
from zoo.schema.precisions import PRECISION_FACTS, Lowering, Precision
from zoo.util.errors import ExportError

if TYPE_CHECKING:
    import onnx

DEFAULT_DOMAIN = ("", "ai.onnx")
"""The names of the domain of ONNX's own operators."""

FP32_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator's definition requires in fp32."""


def to_low(
    model: onnx.ModelProto, low: Precision, islands: Set[str], *, low_images: bool = False
) -> onnx.ModelProto:
    """Returns an fp32 model in a lower type, with fp32 islands.

    Args:
        model: A normalised fp32 model with the type of every intermediate value; changed in place.
        low: Type of all nodes outside the islands.
        islands: Names of the nodes that compute in fp32.
        low_images: Whether the input is fp16, whichever the lower type. The output stays fp32.

    Raises:
        ExportError: A weight is too large for the type, or a value has no known type.
    """
    for opset in model.opset_import:
        opset.version = max(opset.version, PRECISION_FACTS[low].opset)
    _Typing(model, low, islands, low_images=low_images).retype()
    return model


def opset_in(model: onnx.ModelProto, low: Precision) -> int:
    """Returns the opset that a model has once it is in a lower type."""
    own = (int(opset.version) for opset in model.opset_import if opset.domain in DEFAULT_DOMAIN)
    return max(next(own), PRECISION_FACTS[low].opset)


class _Typing:
    """Assigns the values of a model their types, node by node, and inserts casts between types."""

    def __init__(
        self, model: onnx.ModelProto, low: Precision, islands: Set[str], *, low_images: bool
    ) -> None:
        from onnx import TensorProto

        self._graph, self._low, self._islands = model.graph, low, islands
        self._low_type = _number_of(low)
        self._floats = (TensorProto.FLOAT, TensorProto.FLOAT16, self._low_type)
        self._old_types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
        }
        if low_images:  # fp16 even in a bf16 network: numpy and sessions have no bf16
            for value in model.graph.input:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        self._types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        fp32_weights = _weights_of_islands(model, islands, low)
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in fp32_weights:
                _lower(tensor, low)
            self._types[tensor.name] = tensor.data_type
        self._outputs = {value.name for value in model.graph.output}
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def retype(self) -> None:
        """Changes the model in place."""
        from onnx import TensorProto

        for node in self._graph.node:
            kind = TensorProto.FLOAT if node.name in self._islands else self._low_type
            self._cast_inputs(node, kind)
            if kind != TensorProto.FLOAT:
                _retype_attributes(node, self._low)
            self._nodes.append(node)
            self._type_outputs(node, kind)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        for value in self._graph.value_info:
            tensor = value.type.tensor_type
            tensor.elem_type = self._types.get(value.name, tensor.elem_type)

    def _cast_inputs(self, node: onnx.NodeProto, kind: int) -> None:
        """Casts the float inputs of a node whose type is not the node's."""
        for index, name in enumerate(node.input):
            if name == "" or index in FP32_INPUTS.get(node.op_type, ()):
                continue
            if name not in self._types:
                raise ExportError(f"{node.name}: no node or input produces its input '{name}'")
            if self._types[name] in self._floats and self._types[name] != kind:
                node.input[index] = self._cast(name, kind)

    def _cast(self, name: str, kind: int) -> str:
        """Returns the name of a value in another type; adds its cast the first time."""
        if (name, kind) not in self._casts:
            suffix = self._low if kind == self._low_type else Precision.FP32
            self._casts[name, kind] = f"{name}_{suffix}"
            self._add_cast(name, f"{name}_{suffix}", kind, f"{name}_{suffix}")
        return self._casts[name, kind]

    def _type_outputs(self, node: onnx.NodeProto, kind: int) -> None:
        """Records the types of a node's outputs; casts outputs of the network to fp32."""
        from onnx import TensorProto, helper

        for position, name in enumerate(node.output):
            old = self._old_types.get(name, TensorProto.UNDEFINED)
            if old == TensorProto.UNDEFINED:
                raise ExportError(f"{node.name}: the type of its output '{name}' is not known")
            is_float = old == TensorProto.FLOAT
            self._types[name] = kind if is_float else old
            if name in self._outputs and is_float and kind != TensorProto.FLOAT:
                inner = f"{name}_{self._low}"
                node.output[position] = inner
                self._types[inner] = kind
                self._graph.value_info.append(helper.make_tensor_value_info(inner, kind, None))
                self._add_cast(inner, name, old, name)

    def _add_cast(self, value: str, result: str, kind: int, name: str) -> None:
        from onnx import helper

        self._nodes.append(
            helper.make_node("Cast", [value], [result], name=f"cast_{name}", to=kind)
        )


def describe(model: onnx.ModelProto) -> GraphSummary:
    """Returns the types that a model computes in.

    Returns:
        ``weights``: elements per type; ``nodes``: nodes per type of their first output;
        ``casts``: number of cast nodes.
    """
    from onnx import TensorProto

    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        weights[TensorProto.DataType.Name(tensor.data_type).lower()] += int(np.prod(tensor.dims))
    types = {
        value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        for value in (*model.graph.value_info, *model.graph.output)
    }
    nodes = Counter(
        types.get(node.output[0], "unknown") for node in model.graph.node if node.op_type != "Cast"
    )
    casts = sum(node.op_type == "Cast" for node in model.graph.node)
    return GraphSummary(weights=dict(weights), nodes=dict(nodes), casts=casts)


def _weights_of_islands(model: onnx.ModelProto, islands: Set[str], low: Precision) -> set[str]:
    """Returns the weights that stay in fp32.

    These are weights that only islands use, and those that the type can't hold and an island needs
    as they are; other nodes cast them.
    """
    from onnx import numpy_helper

    in_fp32: set[str] = set()
    in_low: set[str] = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            is_fp32 = node.name in islands or index in FP32_INPUTS.get(node.op_type, ())
            (in_fp32 if is_fp32 else in_low).add(name)
    shared = in_fp32 & in_low
    exact = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.name in shared and vanishing(numpy_helper.to_array(tensor), low) is not None
    }
    return (in_fp32 - in_low) | exact


def _number_of(low: Precision) -> int:
    """Returns ONNX's number of a type."""
    from onnx import TensorProto

    return int(TensorProto.DataType.Value(PRECISION_FACTS[low].onnx))


def _lower(tensor: onnx.TensorProto, low: Precision) -> None:
    import ml_dtypes
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max()) if values.size else 0.0
    limit = PRECISION_FACTS[low].largest
    if largest > limit:
        raise ExportError(
            f"weight '{tensor.name}' reaches {largest:.4g}, beyond {low}'s {limit:g}",
            hint="the node that uses it must be an fp32 island",
        )
    kind = np.dtype(getattr(ml_dtypes, PRECISION_FACTS[low].torch, PRECISION_FACTS[low].torch))
    tensor.CopyFrom(numpy_helper.from_array(values.astype(kind), tensor.name))


def _retype_attributes(node: onnx.NodeProto, low: Precision) -> None:
    """Changes a constant's or an explicit cast's type from fp32 to the lower one."""
    from onnx import TensorProto

    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = _number_of(low)
        is_constant = node.op_type in ("Constant", "ConstantOfShape") and attribute.name == "value"
        if is_constant and attribute.t.data_type == TensorProto.FLOAT:
            _lower(attribute.t, low)


def rounded_in_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model that computes in fp32 and rounds every value.

    ONNX Runtime's CPU provider lacks fp16 and bf16 kernels for most operators. It casts to fp32
    around them and removes casts between neighbours, so that nothing is rounded and nothing
    overflows. The copy's explicit rounding shows the effect of the type on the features.
    """
    import onnx
    from onnx import TensorProto

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for tensor in graph.initializer:
        _widen(tensor)
    low: dict[str, int] = {}  # type of each value that is rounded
    for value in (*graph.input, *graph.value_info):
        kind = value.type.tensor_type.elem_type
        if kind in _low_types():
            low[value.name] = kind
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i in _low_types():
                low[node.output[0]] = attribute.i
                attribute.i = TensorProto.FLOAT
            _widen(attribute.t)
        nodes += [node, *_rounded_outputs(node, low)]
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


@cache
def _low_types() -> frozenset[int]:
    """Returns ONNX's numbers of the types that networks are converted to."""
    typed = (kind for kind, facts in PRECISION_FACTS.items() if facts.lowering is Lowering.TYPED)
    return frozenset(map(_number_of, typed))


def _widen(tensor: onnx.TensorProto) -> None:
    """Converts a tensor of such a type to fp32, in place."""
    from onnx import numpy_helper

    if tensor.data_type in _low_types():
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _rounded_outputs(node: onnx.NodeProto, low: dict[str, int]) -> list[onnx.NodeProto]:
    """Renames a node's low-precision outputs and returns the casts that round them."""
    from onnx import TensorProto, helper

    casts = []
    for position, name in enumerate(node.output):
        if name in low:
            exact, rounded = f"{name}:exact", f"{name}:rounded"
            node.output[position] = exact
            casts.append(helper.make_node("Cast", [exact], [rounded], to=low[name]))
            casts.append(helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT))
    return casts
