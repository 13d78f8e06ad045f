"""Exports a backbone and a head as one ONNX model: normalised images to predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo.caft.head import Head
from zoo.caft.task import TASKS, Task
from zoo.inference.extractor import Extractor
from zoo.runtime.onnxruntime import session_options
from zoo.schema.precisions import is_lowered
from zoo.schema.runtimes import runs_onnx
from zoo.util.causes import cause_of
from zoo.util.errors import HeadError, MissingPackageError
from zoo.util.files import whole

OUTPUT = TASKS[Task.CLASSIFICATION].output
_TOLERANCE, _LOW_TOLERANCE = 1e-4, 2e-2
"""Largest allowed difference of a probability, in fp32 and in lower precisions.

In a lower precision runtimes round in different places.
"""


def export_onnx(head: Head, extractor: Extractor, backbone: Path | None, path: Path) -> float:
    """Writes an ONNX model that maps images ``(N, 3, H, W)`` to predictions ``(N, outputs)``.

    They are the output ``probabilities``, or ``values`` for regression. The model's metadata holds
    their names and the preprocessing. It is compared with backbone and head before the file gets
    its name.

    Args:
        head: The trained head.
        extractor: The backbone, which the model is compared with.
        backbone: The ONNX that the backbone was built from, which every runtime supports. If None,
            falls back to the engine if that is an ONNX model, which only its own runtime supports.
        path: The file to write.

    Returns:
        The largest difference of a probability from running backbone and head separately; of
        numbers, as a fraction of the largest.

    Raises:
        HeadError: There is no ONNX model, or the written one computes something else.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("onnx is not installed", hint="pip install onnx") from error
    if backbone is None and runs_onnx(extractor.record.inputs.toolchain.kind):
        backbone = extractor.file
    if backbone is None:
        raise HeadError(
            f"{extractor.record.targets[0]} is not an ONNX model, and the repository does not have "
            "the ONNX that it was built from, so a head can't be appended",
            hint="use --target with the model's cpu target, which zoo show lists",
        )
    tolerance = _LOW_TOLERANCE if is_lowered(extractor.record.inputs.precision) else _TOLERANCE
    model = onnx.load(str(backbone))
    _append(model, head)
    _describe(model, head, extractor)
    with whole(path) as partial:
        onnx.save(model, str(partial))
        difference = _difference(partial, head, extractor)
        if not difference <= tolerance:
            raise HeadError(
                f"{path}: predictions differ by {difference:.2g} from running backbone and head "
                f"separately; the tolerance is {tolerance}",
                hint="nothing was written",
            )
    return difference


def _append(model: Any, head: Head) -> None:
    """Appends the head's operators to the backbone's output."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    features = graph.output[0].name
    tensors = {"head.mean": head.mean, "head.scale": head.scale}
    nodes = [
        helper.make_node("Sub", [features, "head.mean"], ["head.centred"]),
        helper.make_node("Mul", ["head.centred", "head.scale"], ["head.0"]),
    ]
    last = "head.0"
    for number, (weight, bias) in enumerate(head.layers):
        tensors |= {f"head.{number}.weight": weight, f"head.{number}.bias": bias}
        if number:
            nodes.append(helper.make_node("Relu", [last], [f"{last}.relu"]))
            last = f"{last}.relu"
        names = [last, f"head.{number}.weight", f"head.{number}.bias"]
        last = f"head.{number + 1}"
        nodes.append(helper.make_node("Gemm", names, [last], transB=1))
    task = TASKS[head.card.task]
    nodes.append(helper.make_node(task.operator, [last], [task.output], **task.onnx_attributes()))
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        for name, array in tensors.items()
    )
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    classes = len(head.card.labels)
    del graph.output[:]
    shape = [batch, classes]
    graph.output.append(helper.make_tensor_value_info(task.output, TensorProto.FLOAT, shape))


def _describe(model: Any, head: Head, extractor: Extractor) -> None:
    from onnx import helper

    values = {
        "labels": json.dumps(head.card.labels, ensure_ascii=False),
        "preprocess": extractor.preprocess.model_dump_json(),
        "model": extractor.model,
        "task": str(head.card.task),
        "engine": extractor.engine,
    }
    helper.set_model_props(model, values)


def _difference(path: Path, head: Head, extractor: Extractor) -> float:
    """Compares the file with backbone and head on noise, at batch sizes 1 and 2."""
    import onnxruntime

    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has an exception class per status
        reason = cause_of(error)
        raise HeadError(f"the ONNX of backbone and head does not load: {reason}") from error
    random = np.random.default_rng(0)
    shape = extractor.session.input_shape
    worst = 0.0
    for batch in (1, 2):
        images = random.standard_normal((batch, *shape)).astype(np.float32)
        output = TASKS[head.card.task].output
        (computed,) = session.run([output], {session.get_inputs()[0].name: images})
        expected = head.outputs(extractor.session.features(images))
        difference = float(np.abs(computed - expected).max())
        if head.card.task is Task.REGRESSION:
            difference /= max(float(np.abs(expected).max()), 1e-30)
        worst = max(worst, difference)
    return worst
