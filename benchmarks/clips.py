"""Reproduces on the CPU what TensorRT 8.6 does to a Clip that is followed by Q/DQ.

Prints the lowest cosine of MobileNetV2's int8 network with random weights: as the farm made it
before recipe int8-3, as it makes it now, and with integers clipped wherever a Clip is between a
convolution in a higher precision and a QuantizeLinear. See
docs/results/h200-trt8.6/int8-placements.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import onnx
from onnx import TensorProto, helper

from benchmarks.studies.subject import Subject, prepare
from builders.precision import lower, qdq
from builders.precision.graph import Graph
from builders.precision.search import run
from builders.recipe.export_form import DIALECTS
from builders.verify.metrics import compare_rows
from zoo.schema.manifest import load_manifest
from zoo.schema.precisions import Precision

MODEL = "mobilenetv2_100"


def int8_network(subject: Subject) -> onnx.ModelProto:
    """Returns the int8 network that the farm makes for TensorRT."""
    floors = subject.manifest.kept_by(Precision.INT8)
    return lower(subject.fp32(), Precision.INT8, subject.calibration(), floors)[0]


def clip_integers(model: onnx.ModelProto) -> int:
    """Quantises before a Clip instead of after it if the convolution before it is not quantised.

    Returns:
        The number of such places.
    """
    graph, nodes, places = Graph(model), list[onnx.NodeProto](), 0
    for node in graph.nodes:
        clip = graph.producer.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        before = graph.producer.get(clip.input[0]) if clip and clip.op_type == "Clip" else None
        if clip is None or before is None or _quantised(graph, before):
            nodes.append(node)
            continue
        places += 1
        [value] = node.output
        nodes += [
            helper.make_node(node.op_type, [clip.input[0], *node.input[1:]], [f"{value}_integers"]),
            helper.make_node("Cast", [f"{value}_integers"], [f"{value}_floats"], to=1),
            helper.make_node("Clip", [f"{value}_floats", *clip.input[1:]], [f"{value}_clipped"]),
            helper.make_node("Cast", [f"{value}_clipped"], [value], to=TensorProto.INT8),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return places


def _quantised(graph: Graph, node: onnx.NodeProto) -> bool:
    producer = graph.producer.get(node.input[0])
    return producer is not None and producer.op_type == "DequantizeLinear"


def main() -> None:
    """Prints a line per network."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clips", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("_studies"), help="keeps the export")
    options = parser.parse_args()
    manifests, folder = Path("manifests"), options.folder / "torchscript-17" / MODEL
    manifest = load_manifest(manifests / f"{MODEL}.toml")
    dialect = DIALECTS["torchscript-17"]
    subject = prepare(manifest, manifests, folder, print, dialect=dialect)
    images, expected = subject.golden()

    def show(what: str, model: onnx.ModelProto) -> None:
        worst = compare_rows(run(model, images), expected, expected).worst_cosine
        assert worst is not None, what
        print(f"{what}: worst cosine {worst:.6f}")

    with mock.patch.object(qdq, "drop_upper_ends"):
        before = int8_network(subject)
    show("Clips kept", before)
    show("Relus where int8 saturates", int8_network(subject))
    places = clip_integers(before)
    show(f"integers clipped in {places} places", before)


if __name__ == "__main__":
    main()
