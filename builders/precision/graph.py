"""Lookups in an ONNX graph and names of its blocks, shared by the passes."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


class Graph:
    """An ONNX graph with lookup tables.

    Args:
        model: A model with the type and shape of every value; not changed.

    Attributes:
        nodes: Nodes in topological order.
        weights: Initialisers by name.
        producer: Value to the node that computes it.
        consumers: Value to the nodes that use it, in order.
        shapes: Float value to its dimensions; the batch dimension is 0.
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
        """Returns the number of elements per image of a float value."""
        return int(np.prod([dim or 1 for dim in self.shapes[value]]))

    def constant(self, name: str) -> bool:
        """Returns whether a value is the same for every image."""
        if name in self.weights or name == "":
            return True
        node = self.producer.get(name)
        return node is not None and node.op_type == "Constant"

    def depths(self) -> dict[str, int]:
        """Returns the number of nodes on the longest path from the images to each value."""
        depths: dict[str, int] = {}
        for node in self.nodes:
            depth = 1 + max((depths.get(name, 0) for name in node.input), default=0)
            depths |= dict.fromkeys(node.output, depth)
        return depths


def name_nodes(model: onnx.ModelProto) -> None:
    """Gives every node a unique name; exporters leave some unnamed or reuse names."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def module_of(node: onnx.NodeProto) -> str:
    """Returns the PyTorch module of a node, from the name of its weights: ``layer1.0.conv1``.

    The TorchScript exporter drops the names of folded weights. There the module is read from the
    node's name, ``/model/layer1/layer1.0/conv1/Conv``, whose parts repeat their parents.
    """
    for name in node.input:
        if match := re.match(r"model\.(.+)\.\w+$", name):
            return match[1]
    path: list[str] = []
    if node.name.startswith("/model/"):
        for scope in node.name.split("/")[2:-1]:
            parts = scope.split(".")
            path = parts if parts[: len(path)] == path else [*path, *parts]
    return ".".join(path) or node.name
