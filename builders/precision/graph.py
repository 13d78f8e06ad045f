"""Graphs: what the passes over an ONNX share. Lookups, and the names of blocks."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


class Graph:
    """An ONNX graph with the lookups that a pass over it needs.

    Args:
        model: With the type and shape of every value; stays as it is.

    Attributes:
        nodes: In topological order.
        weights: Initialisers by name.
        producer: Value to the node that makes it.
        consumers: Value to the nodes that take it, in order.
        shapes: Float values to their dimensions; what changes with the batch is 0.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import TensorProto

        graph = model.graph
        self.model = model
        self.nodes = list(graph.node)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self.shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.output, *graph.value_info)
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }

    def elements(self, value: str) -> int:
        """Returns the elements per image of a float value."""
        return int(np.prod([dim or 1 for dim in self.shapes[value]]))

    def constant(self, name: str) -> bool:
        """Whether a value is the same for every image."""
        if name in self.weights or name == "":
            return True
        node = self.producer.get(name)
        return node is not None and node.op_type == "Constant"

    def depths(self) -> dict[str, int]:
        """Returns how many nodes the longest way from the images to each value has."""
        found: dict[str, int] = {}
        for node in self.nodes:
            depth = 1 + max((found.get(name, 0) for name in node.input), default=0)
            found |= dict.fromkeys(node.output, depth)
        return found


def name_nodes(model: onnx.ModelProto) -> None:
    """Gives every node a name of its own; exporters leave some without, or name two alike."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def module_of(node: onnx.NodeProto) -> str:
    """Returns what people call a node, by the name of its weights: ``layer1.0.conv1``.

    The TorchScript exporter folds the weights' names away and keeps the modules' in the node's:
    ``/model/layer1/layer1.0/conv1/Conv``, each part of which repeats those before it.
    """
    for name in node.input:
        if match := re.match(r"model\.(.+)\.\w+$", name):
            return match[1]
    whole: list[str] = []
    if node.name.startswith("/model/"):
        for scope in node.name.split("/")[2:-1]:
            parts = scope.split(".")
            whole = parts if parts[: len(whole)] == whole else [*whole, *parts]
    return ".".join(whole) or node.name
