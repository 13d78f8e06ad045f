"""Reports: a head's accuracy on held-out samples, as JSON and as a figure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.head import Head
from zoo.caft.rows import chunk_of, read_rows
from zoo.caft.scores import ClassScore, Wrong, class_scores, score_lines
from zoo.caft.split import Split
from zoo.caft.targets import Targets
from zoo.caft.targets_file import targets_of
from zoo.caft.task import softmax
from zoo.util.digest import canonical_json
from zoo.util.errors import MissingPackageError
from zoo.util.files import whole
from zoo.util.names import counted

_DENSE = 100  # classes up to which the confusion matrix is written with its zeros
_DRAWN = 400  # most rows and columns of the drawn matrix
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch's losses and accuracy.

    Attributes:
        number: Number of the epoch, from 1.
        train_loss: Mean loss of a row during training.
        val_loss: Mean loss on the validation rows after the epoch, or on the training rows if there
            are none.
        val_accuracy: Accuracy on the same rows; None if the head does not classify.
    """

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """A head's results on held-out samples.

    Attributes:
        right: Number of held-out samples classified correctly.
        held_out: Number of held-out samples.
        trained_on: Number of training samples.
        stopped_by: Number of validation samples; if 0, the training loss stopped the training.
        interval: Wilson's 95 percent interval of the accuracy.
        labels: Names of the classes.
        cells: The confusion matrix without its zeros: class, predicted class, held-out samples.
        majority: The most frequent class in training.
        majority_right: Number of held-out samples that always predicting it classifies correctly.
        not_held_out: Names of the classes that were trained but have no held-out samples.
        unlabelled: Number of samples without a label, which were not used.
        curve: The epochs.
        seconds: Duration of all epochs.
        notes: What else was left out, as text; not in the JSON if empty.
        wrong: The held-out samples that were taken for another class; not in the JSON.
    """

    right: int
    held_out: int
    trained_on: int
    stopped_by: int
    interval: tuple[float, float]
    labels: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]
    majority: str
    majority_right: int
    not_held_out: tuple[str, ...]
    unlabelled: int
    curve: tuple[Epoch, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    wrong: tuple[Wrong, ...] = ()

    @property
    def classes(self) -> tuple[ClassScore, ...]:
        """Precision, recall and F1 of each class on the held-out samples."""
        return class_scores(self.labels, self.cells)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Number of held-out samples, ``[class, predicted class]``: quadratic in the classes."""
        return self._binned(len(self.labels))

    def _binned(self, size: int) -> npt.NDArray[np.int64]:
        """Returns the confusion matrix with neighbouring classes added up to a number of bins."""
        binned = np.zeros((size, size), np.int64)
        cells = np.array(self.cells, np.int64).reshape(-1, 3)
        places = cells[:, :2] * size // max(1, len(self.labels))
        np.add.at(binned, (places[:, 0], places[:, 1]), cells[:, 2])
        return binned

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
            f"accuracy {self.accuracy:.1%} on {counted(self.held_out, 'held-out image')} "
            f"(95% interval {low:.1%} to {high:.1%}); always '{self.majority}': "
            f"{self.majority_right / self.held_out:.1%}"
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """The accuracy, and what it does not cover, as text."""
        lines = [self.line]
        if self.held_out and self.not_held_out:
            lines.append(named_line("classes without held-out images", self.not_held_out))
        return (*lines, *unused_lines(self), *score_lines(self.classes))

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def to_json(self) -> bytes:
        """Returns the report as JSON.

        Up to 100 classes, ``confusion`` is the matrix; beyond, ``confusion_cells`` has a list
        ``[class, predicted class, samples]`` for each of its cells that is not zero.
        """
        left_out = ("cells", "wrong")
        values = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out
        }
        if not self.notes:
            del values["notes"]
        values["curve"] = [asdict(epoch) for epoch in self.curve]
        values["accuracy"] = self.accuracy if self.held_out else None
        if len(self.labels) <= _DENSE:
            values["confusion"] = self.confusion.tolist()
        else:
            values["confusion_cells"] = self.cells
        return canonical_json(values) + b"\n"


class Summary(Protocol):
    """The samples that were not used, as in every report."""

    @property
    def unlabelled(self) -> int:
        """Number of samples without a label."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Other samples that were left out."""


def unused_lines(report: Summary) -> tuple[str, ...]:
    """Returns what was not used, as text."""
    lines = [f"  {note}" for note in report.notes]
    if report.unlabelled:
        lines.append(f"  images without a label, which were not used: {report.unlabelled:,}")
    return tuple(lines)


def named_line(kind: str, names: tuple[str, ...]) -> str:
    """Returns a line with the number of names and the first few."""
    shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return f"  {kind}: {len(names):,} ({shown})"


def judge(
    head: Head,
    cache: FeatureCache,
    split: Split,
    curve: list[Epoch],
    seconds: float,
    targets: Targets | None = None,
) -> Report:
    """Evaluates a head on the plain views of the held-out samples.

    Raises:
        HeadError: Some features are not finite numbers, or make outputs that are not.
    """
    targets = targets or targets_of(cache)
    names = targets.names
    predicted, sure = _predicted(head, cache, split)
    actual = np.asarray(targets.values[split.test], np.int64)
    pairs, counts = np.unique(actual * len(names) + predicted, return_counts=True)
    cells = np.stack([pairs // len(names), pairs % len(names)], 1)
    trained = np.bincount(targets.values[split.train], minlength=len(names))
    tested = np.bincount(actual, minlength=len(names))
    majority = int(trained.argmax())
    right, held_out = int((actual == predicted).sum()), len(split.test)
    return Report(
        right=right,
        held_out=held_out,
        trained_on=len(split.train),
        stopped_by=len(split.val),
        interval=wilson(right, held_out),
        labels=names,
        cells=tuple(
            (first, second, count)
            for (first, second), count in zip(cells.tolist(), counts.tolist(), strict=True)
        ),
        majority=names[majority],
        majority_right=int(tested[majority]),
        not_held_out=tuple(
            names[number] for number in np.flatnonzero((trained > 0) & (tested == 0))
        ),
        unlabelled=int((~targets.known).sum()),
        curve=tuple(curve),
        seconds=seconds,
        notes=targets.notes,
        wrong=_wrong(cache, split, names, actual, predicted, sure),
    )


def _predicted(
    head: Head, cache: FeatureCache, split: Split
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Returns the predicted class of each held-out sample, and its probability."""
    predicted = np.empty(len(split.test), np.int64)
    sure = np.empty(len(split.test), np.float32)
    step = chunk_of(max(len(head.card.labels), cache.identity.feature_dim))
    for start in range(0, len(split.test), step):
        rows = read_rows(cache, split.test[start : start + step] * cache.views)
        logits = head.finite_logits(rows)
        predicted[start : start + step] = logits.argmax(axis=1)
        sure[start : start + step] = softmax(logits).max(axis=1)
    return predicted, sure


def _wrong(
    cache: FeatureCache,
    split: Split,
    labels: tuple[str, ...],
    actual: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    sure: npt.NDArray[np.float32],
) -> tuple[Wrong, ...]:
    """Returns the held-out samples that are wrong, in the order of the cache."""
    places = {int(split.test[place]): place for place in np.flatnonzero(actual != predicted)}
    return tuple(
        Wrong(
            photo=name,
            actual=labels[actual[places[sample]]],
            predicted=labels[predicted[places[sample]]],
            probability=float(sure[places[sample]]),
        )
        for sample, name in enumerate(cache.names() if places else ())
        if sample in places
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


class Trained(Protocol):
    """The training, as in every report."""

    @property
    def curve(self) -> tuple[Epoch, ...]:
        """The epochs."""

    @property
    def stopped_by(self) -> int:
        """Number of validation samples."""


def draw_curve(axes: Any, report: Trained) -> None:
    """Draws losses by epoch, and the accuracy of a head that classifies."""
    epochs = [epoch.number for epoch in report.curve]
    axes.plot(epochs, [epoch.train_loss for epoch in report.curve], label="training loss")
    kind = "validation" if report.stopped_by else "training"
    after = [epoch.val_loss for epoch in report.curve]
    axes.plot(epochs, after, label=f"{kind} loss after the epoch")
    axes.set(xlabel="epoch", ylabel="loss", title="Learning curve", yscale="log")
    axes.legend(loc="upper right")
    if not epochs:
        axes.text(0.5, 0.5, "no epochs: scikit-learn", ha="center", transform=axes.transAxes)
        return
    if epochs and report.curve[0].val_accuracy is None:
        return
    other = axes.twinx()
    other.plot(epochs, [epoch.val_accuracy for epoch in report.curve], color="tab:green")
    other.set(ylim=(0, 1.02))
    other.set_ylabel(f"{kind} accuracy", color="tab:green")


def draw_confusion(axes: Any, report: Report) -> None:
    """Draws the confusion matrix as fractions of each class; of many, neighbours are added up."""
    counts = report._binned(min(_DRAWN, len(report.labels))).astype(np.float64)
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
