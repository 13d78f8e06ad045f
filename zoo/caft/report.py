"""Reports: how good a head is on samples that it has not seen. JSON, and a picture."""

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
    """What an epoch gave.

    Attributes:
        number: From 1.
        train_loss: Mean cross-entropy while it learned.
        val_loss: Mean cross-entropy on the validation rows after it; on the training rows where
            there are none.
        val_accuracy: Part of them that is right.
    """

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """How good a head is.

    Attributes:
        right: Held-out samples that it names rightly.
        held_out: How many there are.
        trained_on: Samples that it learned from.
        stopped_by: Samples whose loss stopped it; where there are none, that of the training
            samples did.
        interval: Wilson's 95 percent interval of the accuracy.
        labels: Names of the classes.
        confusion: ``[class][named]``: held-out samples.
        curve: Each epoch.
        seconds: What the epochs took together.
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
        """Part of the held-out samples that is right; not a number when there are none."""
        return self.right / self.held_out if self.held_out else math.nan

    @property
    def seconds_per_epoch(self) -> float:
        """Of training alone; nothing else is timed."""
        return self.seconds / max(1, len(self.curve))

    @property
    def line(self) -> str:
        """The accuracy in words."""
        if not self.held_out:
            return "nothing was held out to judge the head by"
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
    """Judges a head on the held-out samples, in their plain view."""
    count = len(cache.label_names)
    confusion = np.zeros((count, count), np.int64)
    for start in range(0, len(split.test), _CHUNK):
        part = split.test[start : start + _CHUNK]
        named = head.logits(cache.plain[part]).argmax(axis=1)
        np.add.at(confusion, (cache.labels[part], named), 1)
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
        right: Successes.
        count: Trials.
        z: Quantile of the normal distribution; 1.96 for 95 percent.
    """
    if count == 0:
        return 0.0, 1.0
    part = right / count
    centre = part + z * z / (2 * count)
    spread = z * math.sqrt(part * (1 - part) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def draw(report: Report, path: Path) -> None:
    """Draws the learning curve and the confusion matrix into one PNG.

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
    epochs = [one.number for one in report.curve]
    axes.plot(epochs, [one.train_loss for one in report.curve], label="training loss")
    kind = "validation" if report.stopped_by else "training"
    after = [one.val_loss for one in report.curve]
    axes.plot(epochs, after, label=f"{kind} loss after the epoch")
    axes.set(xlabel="epoch", ylabel="cross-entropy", title="Learning curve", yscale="log")
    axes.legend(loc="upper right")
    if not epochs:
        axes.text(0.5, 0.5, "no epochs: scikit-learn", ha="center", transform=axes.transAxes)
        return
    other = axes.twinx()
    other.plot(epochs, [one.val_accuracy for one in report.curve], color="tab:green")
    other.set(ylim=(0, 1.02))
    other.set_ylabel(f"{kind} accuracy", color="tab:green")


def draw_confusion(axes: Any, report: Report) -> None:
    """Draws which class was taken for which, as parts of each class."""
    counts: npt.NDArray[np.float64] = np.array(report.confusion, np.float64)
    shown = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="named", ylabel="is", title=report.line.partition(" (")[0])
    if len(report.labels) <= 30:
        places, names = range(len(report.labels)), [name[:18] for name in report.labels]
        axes.set_xticks(places, names, rotation=90, fontsize=7)
        axes.set_yticks(places, names, fontsize=7)


def new_figure(width: float, height: float) -> Any:
    """Returns a matplotlib figure that needs no display; width and height in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "matplotlib is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as PNG, beside its place first."""
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
