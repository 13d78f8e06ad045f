"""Accuracy: what a precision costs in the task that features are for, on labelled photos.

Two measures. On ImageNet's own classes, the classifier that the weights came with on top of an
engine's features. On any labelled photos, a linear probe: logistic regression on the features,
k-fold, on the same folds for PyTorch and for each engine.
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
    """One way to compute a model's features, and how good they are.

    Attributes:
        model: Manifest id.
        how: ``PyTorch fp32``, a target's label, or an ONNX.
        precision: Of it.
        correct: Photos of which the weights' own classifier names the class; None where there is
            no such classifier.
        photos: How many there are.
        probe: Accuracy of the linear probe over the folds; None where a class has fewer
            photos than there are folds.
        worst_cosine: Of any photo's features with PyTorch's.
        median_cosine: Of all of them.
        engine: Digest of the engine, None where it is none.
        note: What else to know.
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
        repository: Where the engines are published.
        manifest: The model.
        manifest_dir: Its folder, against which local weights are resolved.
        labelled: The photos.
    """
    import torch

    index = repository.model_index(manifest.id)
    entries = index.current if index else ()
    records = [repository.record(manifest.id, entry.record) for entry in entries]
    own = [one for one in records if one is not None and one.inputs.archs == ("cpu",)]
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

    def judged(how: str, precision: Precision, found: Features, **extra: Any) -> Accuracy:
        numbers = compare_rows(found, expected, expected)
        correct = None
        if classify is not None:
            correct = int((classify(found) == labelled.labels).sum())
        return Accuracy(
            model=manifest.id,
            how=how,
            precision=precision,
            correct=correct,
            photos=len(images),
            probe=linear_probe(found, labelled.labels),
            worst_cosine=_or_nan(numbers.worst_cosine),
            median_cosine=_or_nan(numbers.median_cosine),
            **extra,
        )

    yield judged("PyTorch", Precision.FP32, expected)
    for record in own:
        with tempfile.TemporaryDirectory() as scratch:
            engine = repository.blobs.whole(record.engine, Path(scratch))
            with open_session(engine, record.inputs) as session:
                found = _all(session.features, images)
        kept = f"{len(record.advice.kept)} kept higher" if record.advice else ""
        label, digest = record.targets[0], record.engine.sha256
        yield judged(label, record.inputs.precision, found, engine=digest, note=kept)
    if (fp16 := _fp16_export(repository, manifest, records)) is not None:
        note = "no engine: every value rounded to fp16"
        with tempfile.TemporaryDirectory() as scratch:
            path = repository.blobs.whole(fp16.onnx, Path(scratch))
            found = _all(open_onnx(_rounded(path)), images)
        yield judged("fp16 ONNX", Precision.FP16, found, note=note)


def missing(repository: Repository, manifest: Manifest) -> list[str]:
    """Says which CPU engines a model does not have, and why."""
    index = repository.model_index(manifest.id)
    return [
        f"{manifest.id} {', '.join(cell.targets)}: none. {cell.reason}."
        for cell in (index.disabled if index else ())
        if arch_of(cell.targets[0]) == "cpu"
    ]


def linear_probe(features: Features, labels: npt.NDArray[np.int64]) -> float | None:
    """Returns the accuracy of a linear probe over k folds; None where a class has too few.

    Args:
        features: ``(N, feature_dim)``.
        labels: ``(N,)``.
    """
    if np.unique(labels, return_counts=True)[1].min() < FOLDS:
        return None
    return float(probe(features, labels).mean())


def to_markdown(rows: Iterable[Accuracy], name: str, lacking: Iterable[str]) -> str:
    """Returns a table, one row per way to compute the features.

    Args:
        rows: In order.
        name: Where the photos come from.
        lacking: What there is no engine of, and why.
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
    """Returns what names the class of features, None where the cut is not what it takes."""
    import torch

    if backbone.cut.cut not in ("pooled", "pre_logits", "cls_token"):
        return None
    head = backbone.model.get_classifier()
    if getattr(head, "in_features", None) != backbone.cut.feature_dim:
        return None

    def classify(features: Features) -> npt.NDArray[np.int64]:
        with torch.inference_mode():
            named: npt.NDArray[np.int64] = head(torch.from_numpy(features)).argmax(1).numpy()
        return named

    return classify


def _fp16_export(
    repository: Repository, manifest: Manifest, records: Iterable[BuildRecord | None]
) -> ExportRecord | None:
    """Returns the fp16 export that a published engine was made from."""
    for record in records:
        if record is not None and record.inputs.precision == Precision.FP16:
            return repository.export(manifest.id, record.export_key)
    return None


def _rounded(path: Path) -> Any:
    import onnx

    from builders.precision import rounded_in_fp32

    return rounded_in_fp32(onnx.load(path))


def _or_nan(cosine: float | None) -> float:
    """Returns a cosine; NaN where features are not finite and there is none."""
    return float("nan") if cosine is None else cosine
