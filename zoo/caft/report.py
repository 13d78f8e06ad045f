"""Reports: a head's accuracy on held-out samples, as JSON and as a figure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.head import Head
from zoo.caft.split import Split
from zoo.util.digest import canonical_json
from zoo.util.errors import MissingPackageError
from zoo.util.files import whole

_CHUNK = 16_384  # rows


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch's losses and accuracy.

    Attributes:
        number: Number of the epoch, from 1.
        train_loss: Mean cross-entropy during training.
        val_loss: Mean cross-entropy on the validation rows after the epoch, or on the training rows
            if there are none.
        val_accuracy: Accuracy on the same rows.
    """

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """A head's results on held-out samples.

    Attributes:
        right: Number of held-out samples classified correctly.
        held_out: Number of held-out samples.
        trained_on: Number of training samples.
        stopped_by: Number of validation samples; if 0, the training loss stopped the training.
        interval: Wilson's 95 percent interval of the accuracy.
        labels: Names of the classes.
        confusion: Number of held-out samples, ``[class][predicted class]``.
        curve: The epochs.
        seconds: Duration of all epochs.
    """

    right: int
    held_out: int
    trained_on: int
    stopped_by: int
    interval: tuple[float, float]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    curve: tuple[Epoch, ...]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Fraction of held-out samples classified correctly; NaN if there are none."""
        return self.right / self.held_out if self.held_out else math.nan

    @property
    def seconds_per_epoch(self) -> float:
        """Seconds per epoch of training."""
        return self.seconds / max(1, len(self.curve))

    @property
    def line(self) -> str:
        """The accuracy as text."""
        if not self.held_out:
            return "no samples were held out to evaluate the head"
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.1%} on {self.held_out} held-out images "
            f"(95% interval {low:.1%} to {high:.1%})"
        )

    def to_json(self) -> bytes:
        """Returns the report as JSON."""
        values = {**asdict(self), "accuracy": self.accuracy if self.held_out else None}
        return canonical_json(values) + b"\n"


def judge(
    head: Head, cache: FeatureCache, split: Split, curve: list[Epoch], seconds: float
) -> Report:
    """Evaluates a head on the plain views of the held-out samples."""
    count = len(cache.label_names)
    confusion = np.zeros((count, count), np.int64)
    for start in range(0, len(split.test), _CHUNK):
        part = split.test[start : start + _CHUNK]
        predicted = head.logits(cache.plain[part]).argmax(axis=1)
        np.add.at(confusion, (cache.labels[part], predicted), 1)
    right, held_out = int(np.trace(confusion)), len(split.test)
    return Report(
        right=right,
        held_out=held_out,
        trained_on=len(split.train),
        stopped_by=len(split.val),
        interval=wilson(right, held_out),
        labels=cache.label_names,
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        curve=tuple(curve),
        seconds=seconds,
    )


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927). Unlike the normal interval it stays within 0..1 and holds for few samples.

    Args:
        right: Number of successes.
        count: Number of trials.
        z: Quantile of the normal distribution; 1.96 for 95 percent.
    """
    if count == 0:
        return 0.0, 1.0
    share = right / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def draw(report: Report, path: Path) -> None:
    """Writes a PNG with the learning curve and the confusion matrix.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    draw_curve(left, report)
    draw_confusion(right, report)
    save_figure(figure, path)


def draw_curve(axes: Any, report: Report) -> None:
    """Draws losses and accuracy by epoch."""
    epochs = [epoch.number for epoch in report.curve]
    axes.plot(epochs, [epoch.train_loss for epoch in report.curve], label="training loss")
    kind = "validation" if report.stopped_by else "training"
    after = [epoch.val_loss for epoch in report.curve]
    axes.plot(epochs, after, label=f"{kind} loss after the epoch")
    axes.set(xlabel="epoch", ylabel="cross-entropy", title="Learning curve", yscale="log")
    axes.legend(loc="upper right")
    if not epochs:
        axes.text(0.5, 0.5, "no epochs: scikit-learn", ha="center", transform=axes.transAxes)
        return
    other = axes.twinx()
    other.plot(epochs, [epoch.val_accuracy for epoch in report.curve], color="tab:green")
    other.set(ylim=(0, 1.02))
    other.set_ylabel(f"{kind} accuracy", color="tab:green")


def draw_confusion(axes: Any, report: Report) -> None:
    """Draws the confusion matrix as fractions of each class."""
    counts: npt.NDArray[np.float64] = np.array(report.confusion, np.float64)
    shown = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", title=report.line.partition(" (")[0])
    if len(report.labels) <= 30:
        places, names = range(len(report.labels)), [name[:18] for name in report.labels]
        axes.set_xticks(places, names, rotation=90, fontsize=7)
        axes.set_yticks(places, names, fontsize=7)


def new_figure(width: float, height: float) -> Any:
    """Returns a matplotlib figure that needs no display; width and height are in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "matplotlib is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure atomically as PNG."""
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
