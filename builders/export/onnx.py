"""Exports a backbone to a normalised ONNX, and the golden features that verify its engines.

The same inputs give the same bytes in any folder: whatever the exporter adds about its machine
(absolute paths, its version) is removed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.photos import bundled
from builders.photos.edge import edge_batch
from builders.precision.onnx_session import open_onnx
from builders.recipe.export_form import DIALECTS, OPSETS
from builders.verify.edges import compare_edges, edge_features
from builders.weights.finite import HINT, why_not_finite
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import InputSize, Manifest, sides
from zoo.schema.measurements import EdgeNumbers, OnnxCheck
from zoo.util.causes import cause_of
from zoo.util.errors import ExportError

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

Exporter = Callable[["nn.Module", "torch.Tensor", Path], "onnx.ModelProto"]
Opened = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From normalised images to features: what :func:`open_onnx` returns."""

INPUT, OUTPUT = "images", "features"


def write_golden(backbone: nn.Module, manifest: Manifest, path: Path) -> npt.NDArray[np.float32]:
    """Runs the golden photos through PyTorch and stores both.

    Args:
        backbone: A :class:`~builders.export.backbone.Backbone`, in fp32.
        manifest: The model; it names the preprocessing.
        path: ``.npz`` with ``images`` (uint8, N x H x W x 3) and ``features`` (float32,
            N x feature_dim), and ``edge_features`` of the generated edge pictures.

    Returns:
        The features.

    Raises:
        ExportError: A feature is not finite, or two photos have the same features.
    """
    import torch

    images = bundled.golden_photos(manifest.preprocess)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), bundled.GOLDEN_BATCH):
            part = images[start : start + bundled.GOLDEN_BATCH]
            batch = normalise(part, manifest.preprocess.plain)
            rows.append(backbone(torch.from_numpy(batch)).numpy())
    features = np.concatenate(rows)
    if not np.isfinite(features).all():
        raise _not_finite(manifest, backbone, images)
    if len(np.unique(features.round(6), axis=0)) < len(features):
        raise ExportError(f"{manifest.id}: different photos have the same features in PyTorch")
    with torch.inference_mode():
        edges = backbone(
            torch.from_numpy(edge_batch(manifest.preprocess.plain, manifest.preprocess.input_size))
        ).numpy()
    np.savez(path, images=images, features=features, edge_features=edges)
    return features


def _not_finite(
    manifest: Manifest, backbone: nn.Module, images: npt.NDArray[np.uint8]
) -> ExportError:
    import torch

    pixels = torch.from_numpy(normalise(images, manifest.preprocess.plain))
    network = getattr(backbone, "model", backbone)  # by timm's names of tensors
    reason = why_not_finite(network, lambda: backbone(pixels))
    said = f"{manifest.id}: PyTorch's own features are not finite"
    return ExportError(f"{said}: {reason}" if reason else said, hint=HINT)


def check_edges(
    model: onnx.ModelProto | Path | Opened,
    golden: Path,
    manifest: Manifest,
    fp32: Path | None = None,
) -> dict[str, EdgeNumbers]:
    """Runs an exported ONNX on the edge pictures and compares it with PyTorch.

    Args:
        model: The ONNX: opened, in memory or as a file.
        golden: The golden file.
        manifest: The model; it names the preprocessing.
        fp32: The fp32 ONNX, which stands in for PyTorch where an old golden file has no features
            of these pictures.
    """
    pictures = edge_batch(manifest.preprocess.plain, manifest.preprocess.input_size)
    with np.load(golden) as arrays:
        features = arrays["features"]
        expected = arrays.get("edge_features")
    if expected is None and fp32 is not None:
        expected = open_onnx(fp32, rounds=False)(pictures)
    return compare_edges(edge_features(_opened(model), pictures, 5), expected, features)


def _opened(model: onnx.ModelProto | Path | Opened) -> Opened:
    return model if callable(model) else open_onnx(model)


def write_onnx(
    backbone: nn.Module,
    input_size: InputSize,
    path: Path,
    dialect: str = DIALECTS["dynamo-20"],
    *,
    optimize: bool = True,
) -> tuple[str, ...]:
    """Exports a backbone with a dynamic batch, normalised.

    A network that the exporter refuses is tried again without fused attention.

    Args:
        backbone: On the CPU, in fp32.
        input_size: Height and width in pixels: one number for a square.
        path: Where the ONNX goes.
        dialect: Exporter and opset, as in an export key.
        optimize: Whether the exporter may simplify the network. It takes an addition of less than
            1e-8 for one of nothing, and so removes what guards a division.

    Returns:
        What the export needed, in words.

    Raises:
        ExportError: The exporter does not support the network, or the dialect is unknown.
    """
    import logging

    import torch

    dynamo = partial(_export_dynamo, optimize=optimize)
    exporters: dict[str, Exporter] = {
        DIALECTS["dynamo-20"]: dynamo,
        DIALECTS["torchscript-17"]: _export_script,
    }
    if dialect not in exporters:
        raise ExportError(f"no exporter for '{dialect}'; dialects are {', '.join(exporters)}")
    example = torch.zeros(2, 3, *sides(input_size))  # the exporter would make a batch of 1 static
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    export = partial(_export, exporters[dialect], backbone, example, path)
    notes: tuple[str, ...] = ()
    try:
        model = export()
    except Exception as error:  # exporters raise classes of every layer below them
        with _without_fused_attention(backbone) as cured:
            if not cured:
                raise _not_exported(error) from error
            print(f"trying again without fused attention: {cause_of(error)}")
            try:
                model = export()
            except Exception as second:
                raise _not_exported(second) from second
        notes = (f"exported without fused attention, with which it fails: {cause_of(error)}",)
    normalise_onnx(model)
    save_onnx(model, path)
    return notes


def _export(
    exporter: Exporter, backbone: nn.Module, example: torch.Tensor, path: Path
) -> onnx.ModelProto:
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return exporter(backbone, example, path)


def _not_exported(error: Exception) -> ExportError:
    return ExportError(f"torch.onnx can't export this network: {cause_of(error)}")


@contextmanager
def _without_fused_attention(backbone: nn.Module) -> Iterator[bool]:
    """Has attention computed step by step meanwhile, as by timm's ``set_fused_attn(False)``.

    The result is the same up to rounding. The exporter knows the fused operator for one layout of
    queries only, and e.g. Hiera's windows have another.

    Yields:
        Whether any layer used the fused operator.
    """
    fused: list[Any] = [layer for layer in backbone.modules() if _is_fused(layer)]
    for layer in fused:
        layer.fused_attn = False
    try:
        yield bool(fused)
    finally:
        for layer in fused:
            layer.fused_attn = True


def _is_fused(layer: nn.Module) -> bool:
    return getattr(layer, "fused_attn", False) is True


def _export_dynamo(
    backbone: nn.Module, example: torch.Tensor, path: Path, *, optimize: bool
) -> onnx.ModelProto:
    import onnx
    import torch

    program = torch.onnx.export(
        backbone,
        (example,),
        dynamo=True,
        opset_version=OPSETS["dynamo-20"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        external_data=False,
        verbose=False,
        optimize=optimize,
    )
    assert program is not None
    model = program.model_proto
    if not optimize:  # then some types are missing
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return model


def _export_script(backbone: nn.Module, example: torch.Tensor, path: Path) -> onnx.ModelProto:
    """Exports for TensorRT 8.6; that exporter omits value types, which are inferred here."""
    import onnx
    import torch

    torch.onnx.export(
        backbone,
        (example,),
        str(path),
        dynamo=False,
        opset_version=OPSETS["torchscript-17"],
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    model = onnx.load(path)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def normalise_onnx(model: onnx.ModelProto) -> None:
    """Removes metadata that changes a model's digest but not its results.

    ``doc_string`` and ``metadata_props`` hold absolute paths and stack traces; the producer's
    version would change the digest with every release of the exporter.
    """
    model.producer_name, model.producer_version = "caft-zoo", ""
    model.ClearField("domain")
    model.ClearField("model_version")
    graph = model.graph
    graph.name = "backbone"
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info,
                 *graph.input, *graph.output):  # fmt: skip
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model to the same bytes every time.

    Raises:
        ExportError: The model is not valid ONNX.
    """
    import onnx

    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported ONNX is not valid: {cause_of(error)}") from error


def parameter_count(model: onnx.ModelProto) -> int:
    """Returns the number of weights in a model."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def compare_with_golden(
    model: onnx.ModelProto | Path | Opened,
    golden: Path,
    manifest: Manifest,
    batches: tuple[int, ...],
) -> OnnxCheck:
    """Runs an exported ONNX and compares it with PyTorch.

    This detects a fixed batch size, a missing normalisation or a network in training mode before
    any engine is built.

    Args:
        model: The ONNX: opened, in memory or as a file.
        golden: The golden file.
        manifest: The model; it names the preprocessing.
        batches: Batch sizes to run.

    Returns:
        Runtime, batches, worst cosine and worst relative error.

    Raises:
        ExportError: Its features have another shape.
    """
    with np.load(golden) as arrays:
        images, features = arrays["images"], arrays["features"]
    run = _opened(model)
    cosines, errors, start = [], [], 0
    for batch in batches:
        rows = np.arange(start, start + batch) % len(images)
        start += batch
        feed = normalise(images[rows], manifest.preprocess.plain)
        actual = run(feed).astype(np.float64)
        expected = features[rows].astype(np.float64)
        if actual.shape != expected.shape:
            raise ExportError(
                f"{manifest.id}: at batch {batch} the features of the ONNX have shape "
                f"{actual.shape}, those of PyTorch {expected.shape}"
            )
        norms = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
        cosines += list((actual * expected).sum(1) / norms)
        errors += list(np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1))
    return OnnxCheck(
        runtime=f"onnxruntime {version('onnxruntime')}, CPU",
        batches=batches,
        worst_cosine=float(np.min(cosines)),
        worst_relative_error=float(np.max(errors)),
    )
