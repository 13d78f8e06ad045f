"""Measures the accuracy of engines and PyTorch on labelled photos.

There are two measures. With ImageNet's classes: the classifier of the pre-trained weights, applied
to an engine's features. With any labelled photos: a linear probe, k-fold logistic regression on the
features, with the same folds for PyTorch and each engine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.measure.engine_vs_pytorch import backbone_of
from builders.photos.labelled import Labelled
from builders.precision.onnx_session import open_onnx
from builders.run.linear_probe import FOLDS, probe
from builders.verify.metrics import compare_rows
from zoo.client.host import describe_machine
from zoo.inference.preprocess import normalise
from zoo.repository.repository import Repository
from zoo.runtime import open_session
from zoo.schema.manifest import Manifest
from zoo.schema.precisions import Precision
from zoo.schema.records import BuildRecord, ExportRecord
from zoo.schema.targets import arch_of

if TYPE_CHECKING:
    from builders.export.backbone import Backbone

Features = npt.NDArray[np.float32]
_AT_ONCE = 4  # photos


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy of one way to compute a model's features.

    Attributes:
        model: Manifest id.
        how: ``PyTorch``, a target's label, or ``fp16 ONNX``.
        precision: Its precision.
        correct: Number of photos that the classifier of the weights classifies correctly; None if
            there is no such classifier.
        photos: Number of photos.
        probe: Accuracy of the linear probe, from 0 to 1; None if a class has fewer photos than
            there are folds.
        worst_cosine: Lowest cosine of a photo's features with PyTorch's.
        median_cosine: Median of these cosines.
        engine: Digest of the engine, None if it is not an engine.
        note: A remark, or empty.
    """

    model: str
    how: str
    precision: Precision
    correct: int | None
    photos: int
    probe: float | None
    worst_cosine: float
    median_cosine: float
    engine: str | None = None
    note: str = ""


def measure(
    repository: Repository,
    manifest: Manifest,
    manifest_dir: Path,
    labelled: Labelled,
) -> Iterator[Accuracy]:
    """Measures PyTorch, each CPU engine of a model, and its fp16 ONNX, on the same photos.

    Args:
        repository: The repository of the engines.
        manifest: The model.
        manifest_dir: Folder of the manifest, which paths of local weights are relative to.
        labelled: The photos.
    """
    import torch

    index = repository.model_index(manifest.id)
    entries = index.current if index else ()
    records = [repository.record(manifest.id, entry.record) for entry in entries]
    own = [record for record in records if record and record.inputs.archs == ("cpu",)]
    if not own:
        return
    images = normalise(labelled.pixels(manifest.preprocess.plain), manifest.preprocess.plain)
    model = backbone_of(repository, manifest, manifest_dir, own[0])

    def in_pytorch(batch: Features) -> Features:
        with torch.inference_mode():
            features: Features = model(torch.from_numpy(batch)).numpy()
        return features

    expected = _all(in_pytorch, images)
    classify = _classifier(model) if labelled.imagenet else None

    def judged(how: str, precision: Precision, features: Features, **extra: Any) -> Accuracy:
        numbers = compare_rows(features, expected, expected)
        correct = None
        if classify is not None:
            correct = int((classify(features) == labelled.labels).sum())
        return Accuracy(
            model=manifest.id,
            how=how,
            precision=precision,
            correct=correct,
            photos=len(images),
            probe=linear_probe(features, labelled.labels),
            worst_cosine=_or_nan(numbers.worst_cosine),
            median_cosine=_or_nan(numbers.median_cosine),
            **extra,
        )

    yield judged("PyTorch", Precision.FP32, expected)
    for record in own:
        with tempfile.TemporaryDirectory() as scratch:
            engine = repository.blobs.whole(record.engine, Path(scratch))
            with open_session(engine, record.inputs) as session:
                features = _all(session.features, images)
        kept = f"{len(record.advice.kept)} kept higher" if record.advice else ""
        label, digest = record.targets[0], record.engine.sha256
        yield judged(label, record.inputs.precision, features, engine=digest, note=kept)
    if (fp16 := _fp16_export(repository, manifest, records)) is not None:
        note = "no engine: every value rounded to fp16"
        with tempfile.TemporaryDirectory() as scratch:
            path = repository.blobs.whole(fp16.onnx, Path(scratch))
            features = _all(open_onnx(_rounded(path)), images)
        yield judged("fp16 ONNX", Precision.FP16, features, note=note)


def missing(repository: Repository, manifest: Manifest) -> list[str]:
    """Returns a line per CPU engine that a model does not have, with the reason."""
    index = repository.model_index(manifest.id)
    return [
        f"{manifest.id} {', '.join(cell.targets)}: none. {cell.reason}."
        for cell in (index.disabled if index else ())
        if arch_of(cell.targets[0]) == "cpu"
    ]


def linear_probe(features: Features, labels: npt.NDArray[np.int64]) -> float | None:
    """Returns the k-fold accuracy of a linear probe, None if a class has too few photos.

    Args:
        features: ``(N, feature_dim)``.
        labels: ``(N,)``.
    """
    if np.unique(labels, return_counts=True)[1].min() < FOLDS:
        return None
    return float(probe(features, labels).mean())


def to_markdown(rows: Iterable[Accuracy], name: str, lacking: Iterable[str]) -> str:
    """Returns a Markdown table with a row per way to compute the features.

    Args:
        rows: The rows, in order.
        name: Name of the photos.
        lacking: Lines about missing engines.
    """
    lines = [
        "| model | computed by | top-1 | linear probe | worst cosine | median cosine | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        top = "" if row.correct is None else f"{row.correct} of {row.photos}"
        probe = "" if row.probe is None else f"{row.probe:.1%}"
        cosines = f"{row.worst_cosine:.5f} | {row.median_cosine:.5f}"
        lines.append(f"| {row.model} | {row.how} | {top} | {probe} | {cosines} | {row.note} |")
    machine = describe_machine()
    lines += ["", f"{name}; {machine.cpu}, {machine.cores} cores.", ""]
    return "\n".join([*lines, *(f"- {line}" for line in lacking)]).rstrip()


def _all(run: Callable[[Features], Features], images: Features) -> Features:
    starts = range(0, len(images), _AT_ONCE)
    return np.concatenate([run(images[start : start + _AT_ONCE]) for start in starts])


def _classifier(backbone: Backbone) -> Callable[[Features], npt.NDArray[np.int64]] | None:
    """Returns the classifier of the weights, None if it needs features of another cut."""
    import torch

    if not backbone.cut.cut.feeds_classifier:
        return None
    head = backbone.model.get_classifier()
    if getattr(head, "in_features", None) != backbone.cut.feature_dim:
        return None
    if not all(parameter.isfinite().all() for parameter in head.parameters()):
        return None  # the weights are fine-tuned ones, without ImageNet's classifier

    def classify(features: Features) -> npt.NDArray[np.int64]:
        with torch.inference_mode():
            named: npt.NDArray[np.int64] = head(torch.from_numpy(features)).argmax(1).numpy()
        return named

    return classify


def _fp16_export(
    repository: Repository, manifest: Manifest, records: Iterable[BuildRecord | None]
) -> ExportRecord | None:
    """Returns the fp16 export that a published engine was built from."""
    for record in records:
        if record is not None and record.inputs.precision == Precision.FP16:
            return repository.export(manifest.id, record.export_key)
    return None


def _rounded(path: Path) -> Any:
    import onnx

    from builders.precision import rounded_in_fp32

    return rounded_in_fp32(onnx.load(path))


def _or_nan(cosine: float | None) -> float:
    """Returns a cosine, NaN if there is none because features are not finite."""
    return float("nan") if cosine is None else cosine
