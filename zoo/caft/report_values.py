"""Reports of heads that predict numbers or labels, beside what knows nothing of the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.head import Head
from zoo.caft.report import Epoch, named_line, unused_lines
from zoo.caft.rows import chunk_of, read_rows
from zoo.caft.split import Split
from zoo.caft.targets import Targets
from zoo.util.digest import canonical_json
from zoo.util.names import counted

Numbers = npt.NDArray[np.float64]
_THRESHOLD = 0.5
_LINES = 8  # most targets with a line of their own


@dataclass(frozen=True, kw_only=True)
class NumberScore:
    """The errors of one predicted number on held-out samples.

    Attributes:
        name: Name of the number.
        mae: Mean absolute error.
        rmse: Root of the mean squared error.
        r2: Coefficient of determination; None if the held-out values are all the same.
        mean: Mean in training, which the baseline always predicts.
        mean_mae: The baseline's mean absolute error.
        mean_rmse: The root of its mean squared error.
    """

    name: str
    mae: float
    rmse: float
    r2: float | None
    mean: float
    mean_mae: float
    mean_rmse: float

    @property
    def line(self) -> str:
        """The errors as text."""
        r2 = "undefined" if self.r2 is None else f"{self.r2:.3f}"
        return (
            f"{self.name}: MAE {self.mae:.4g}, RMSE {self.rmse:.4g}, R2 {r2}; always the mean "
            f"{self.mean:.4g}: MAE {self.mean_mae:.4g}, RMSE {self.mean_rmse:.4g}"
        )


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """The quality of predictions of one label on held-out samples.

    Attributes:
        name: Name of the label.
        held_out: Number of held-out samples that have it.
        ap: Average precision; None if none or all of them have it.
        f1: F1 score where it is predicted from a probability of one half; None if no held-out
            sample has it.
        majority_f1: The F1 score of always predicting what most training samples have.
    """

    name: str
    held_out: int
    ap: float | None
    f1: float | None
    majority_f1: float


@dataclass(frozen=True, kw_only=True, repr=False)
class _ValuesReport:
    """The fields that both reports share.

    Attributes:
        held_out: Number of held-out samples.
        trained_on: Number of training samples.
        stopped_by: Number of validation samples; if 0, the training loss stopped the training.
        labels: Names of the numbers or labels.
        unlabelled: Number of samples without a label, which were not used.
        notes: What else was left out, as text.
        curve: The epochs.
        seconds: Duration of all epochs.
    """

    held_out: int
    trained_on: int
    stopped_by: int
    labels: tuple[str, ...]
    unlabelled: int
    notes: tuple[str, ...]
    curve: tuple[Epoch, ...]
    seconds: float

    @property
    def seconds_per_epoch(self) -> float:
        """Seconds per epoch of training."""
        return self.seconds / max(1, len(self.curve))

    @property
    def lines(self) -> tuple[str, ...]:
        """The report as text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def to_json(self) -> bytes:
        """Returns the report as JSON."""
        return canonical_json(asdict(self)) + b"\n"


@dataclass(frozen=True, kw_only=True, repr=False)
class RegressionReport(_ValuesReport):
    """A head's errors on held-out samples.

    Attributes:
        scores: The errors of each number; empty if no samples were held out.
    """

    scores: tuple[NumberScore, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The errors, and what they do not cover, as text."""
        if not self.held_out:
            return ("no samples were held out to evaluate the head", *unused_lines(self))
        lines = [f"on {counted(self.held_out, 'held-out image')}:"]
        lines += [f"  {score.line}" for score in self.scores[:_LINES]]
        if len(self.scores) > _LINES:
            lines.append(f"  … and {len(self.scores) - _LINES:,} more")
        return (*lines, *unused_lines(self))


@dataclass(frozen=True, kw_only=True, repr=False)
class MultiLabelReport(_ValuesReport):
    """The quality of a head's labels on held-out samples.

    Means over labels leave out those that no held-out sample has.

    Attributes:
        mean_ap: Mean of the labels' average precision; None if it is undefined for all.
        chance_ap: The same of random scores: the mean share of samples that have a label.
        f1_micro: F1 score over all labels and samples.
        f1_macro: Mean of the labels' F1 scores.
        majority_f1_micro: The F1 score of always predicting what most training samples have.
        majority_f1_macro: The mean of the labels' F1 scores then.
        scores: The scores of each label.
        not_held_out: Names of the labels that no held-out sample has.
        not_trained: Names of the labels that no training sample has.
    """

    mean_ap: float | None
    chance_ap: float | None
    f1_micro: float
    f1_macro: float
    majority_f1_micro: float
    majority_f1_macro: float
    scores: tuple[LabelScore, ...]
    not_held_out: tuple[str, ...]
    not_trained: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The scores, and what they do not cover, as text."""
        if not self.held_out:
            return ("no samples were held out to evaluate the head", *unused_lines(self))
        lines = []
        if self.mean_ap is not None and self.chance_ap is not None:
            lines.append(
                f"mAP {self.mean_ap:.1%} on {counted(self.held_out, 'held-out image')}; by chance: "
                f"{self.chance_ap:.1%}"
            )
        lines.append(
            f"F1 micro {self.f1_micro:.1%}, macro {self.f1_macro:.1%} on {self.held_out:,} "
            f"held-out images; always the majority: {self.majority_f1_micro:.1%}, "
            f"{self.majority_f1_macro:.1%}"
        )
        for kind, names in (
            ("labels without held-out images", self.not_held_out),
            ("labels without training images", self.not_trained),
        ):
            if names:
                lines.append(named_line(kind, names))
        return (*lines, *unused_lines(self))


class _Common(TypedDict):
    """Arguments of both reports."""

    held_out: int
    trained_on: int
    stopped_by: int
    labels: tuple[str, ...]
    unlabelled: int
    notes: tuple[str, ...]
    curve: tuple[Epoch, ...]
    seconds: float


def _common(
    cache: FeatureCache, targets: Targets, split: Split, curve: list[Epoch], seconds: float
) -> _Common:
    return {
        "held_out": len(split.test),
        "trained_on": len(split.train),
        "stopped_by": len(split.val),
        "labels": targets.names,
        "unlabelled": int((~targets.known).sum()),
        "notes": targets.notes,
        "curve": tuple(curve),
        "seconds": seconds,
    }


def judge_regression(
    head: Head,
    cache: FeatureCache,
    targets: Targets,
    split: Split,
    curve: list[Epoch],
    seconds: float,
) -> RegressionReport:
    """Evaluates a head on the plain views of the held-out samples."""
    actual = targets.values[split.test]
    predicted = np.asarray(_outputs(head, cache, split.test), np.float64)
    means = targets.values[split.train].mean(axis=0)
    scores = tuple(
        _number_score(name, actual[:, n], predicted[:, n], float(means[n]))
        for n, name in enumerate(targets.names)
        if len(actual)
    )
    return RegressionReport(scores=scores, **_common(cache, targets, split, curve, seconds))


def _number_score(name: str, actual: Numbers, predicted: Numbers, mean: float) -> NumberScore:
    error, spread = predicted - actual, actual - actual.mean()
    total = float(np.square(spread).sum())
    return NumberScore(
        name=name,
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(np.square(error).mean())),
        r2=1 - float(np.square(error).sum()) / total if total else None,
        mean=mean,
        mean_mae=float(np.abs(actual - mean).mean()),
        mean_rmse=float(np.sqrt(np.square(actual - mean).mean())),
    )


def judge_labels(
    head: Head,
    cache: FeatureCache,
    targets: Targets,
    split: Split,
    curve: list[Epoch],
    seconds: float,
) -> MultiLabelReport:
    """Evaluates a head on the plain views of the held-out samples."""
    actual = targets.values[split.test] == 1
    outputs = _outputs(head, cache, split.test)
    predicted = outputs >= _THRESHOLD
    trained = targets.values[split.train].sum(axis=0, dtype=np.int64)
    majority = np.broadcast_to(2 * trained > len(split.train), actual.shape)
    ours, theirs = f1_scores(actual, predicted), f1_scores(actual, majority)
    positives = actual.sum(axis=0)
    scores = tuple(
        LabelScore(
            name=name,
            held_out=int(positives[n]),
            ap=average_precision(actual[:, n], outputs[:, n]),
            f1=float(ours[n]) if positives[n] else None,
            majority_f1=float(theirs[n]),
        )
        for n, name in enumerate(targets.names)
    )
    defined = [n for n, score in enumerate(scores) if score.ap is not None]
    present = positives > 0
    return MultiLabelReport(
        mean_ap=float(np.mean([scores[n].ap for n in defined])) if defined else None,
        chance_ap=float(actual[:, defined].mean()) if defined else None,
        f1_micro=_micro(actual, predicted),
        f1_macro=float(ours[present].mean()) if present.any() else 0.0,
        majority_f1_micro=_micro(actual, majority),
        majority_f1_macro=float(theirs[present].mean()) if present.any() else 0.0,
        scores=scores,
        not_held_out=tuple(targets.names[n] for n in np.flatnonzero(~present)),
        not_trained=tuple(targets.names[n] for n in np.flatnonzero(trained == 0)),
        **_common(cache, targets, split, curve, seconds),
    )


def _outputs(
    head: Head, cache: FeatureCache, samples: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    outputs = np.empty((len(samples), len(head.card.labels)), np.float32)
    step = chunk_of(max(outputs.shape[1], cache.identity.feature_dim))
    for start in range(0, len(samples), step):
        rows = samples[start : start + step] * cache.views
        outputs[start : start + step] = head.outputs(read_rows(cache, rows))
    return outputs


def average_precision(
    actual: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]
) -> float | None:
    """Returns the average precision of scores, None if all samples or none have the label.

    It is the mean, over the samples with the label, of the precision at their score: the area under
    the precision-recall curve as scikit-learn defines it. Samples of one score count together.
    """
    positives = int(actual.sum())
    if positives in (0, len(actual)):
        return None
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(actual[order])
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    precision = hits[ends] / (ends + 1)
    recalled = np.diff(np.append(0, hits[ends]))
    return float((precision * recalled).sum() / positives)


def f1_scores(actual: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> Numbers:
    """Returns the F1 score of each column, 0 where it is undefined."""
    right = (actual & predicted).sum(axis=0)
    total = actual.sum(axis=0) + predicted.sum(axis=0)
    return np.asarray(2 * right / np.maximum(total, 1), np.float64)


def _micro(actual: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> float:
    return float(f1_scores(actual.reshape(-1, 1), predicted.reshape(-1, 1))[0])
