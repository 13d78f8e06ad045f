"""How well each class is predicted, and which photos are wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.util.files import whole
from zoo.util.names import counted

_SHOWN = 3  # most classes with a line of their own


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How well a class is predicted.

    Attributes:
        name: Name of the class.
        images: Number of images of it.
        right: Number of them that were predicted as it.
        predicted: Number of images that were predicted as it.
        confused_with: The class that most of the others were taken for; None if all are right.
    """

    name: str
    images: int
    right: int
    predicted: int
    confused_with: str | None

    @property
    def recall(self) -> float | None:
        """Share of its images that are right; None without images."""
        return self.right / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Share of the images predicted as it that are it; None if there are none."""
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None if the class has neither."""
        both = self.images + self.predicted
        return 2 * self.right / both if both else None


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A photo that is predicted as another class.

    Attributes:
        photo: Its name.
        actual: Its class.
        predicted: The class that it was taken for.
        probability: How sure the head is of that, from 0 to 1.
    """

    photo: str
    actual: str
    predicted: str
    probability: float


def class_scores(
    labels: Sequence[str], cells: Iterable[tuple[int, int, int]]
) -> tuple[ClassScore, ...]:
    """Returns the score of each class, in the order of ``labels``.

    Args:
        labels: Names of the classes.
        cells: The confusion matrix without its zeros: class, predicted class, images.
    """
    images, right, predicted = ([0] * len(labels) for _ in range(3))
    worst: dict[int, tuple[int, int]] = {}
    for actual, guess, number in cells:
        images[actual] += number
        predicted[guess] += number
        if actual == guess:
            right[actual] += number
        elif number > worst.get(actual, (0, 0))[0]:
            worst[actual] = number, guess
    return tuple(
        ClassScore(
            name=name,
            images=images[place],
            right=right[place],
            predicted=predicted[place],
            confused_with=labels[worst[place][1]] if place in worst else None,
        )
        for place, name in enumerate(labels)
    )


def score_lines(scores: Iterable[ClassScore]) -> tuple[str, ...]:
    """Returns lines about the classes that are recognised least; none if all images are right."""
    wrong = [score for score in scores if score.right < score.images]
    wrong.sort(key=lambda score: (score.right / score.images, -score.images, score.name))
    return tuple(
        f"  {score.name}: {score.right:,} of {counted(score.images, 'image')} right, "
        f"most often taken for {score.confused_with}"
        for score in wrong[:_SHOWN]
    )


def write_wrong(wrong: Iterable[Wrong], path: Path) -> None:
    """Writes a CSV of photos that are wrong, those that the head is most sure of first."""
    with new_csv(path) as write:
        write(["photo", "actual", "predicted", "probability"])
        for photo in sorted(wrong, key=lambda each: (-each.probability, each.photo)):
            write([photo.photo, photo.actual, photo.predicted, number(photo.probability)])


def write_scores(scores: Iterable[ClassScore], path: Path) -> None:
    """Writes a CSV of the scores of each class; a score that is undefined is empty."""
    with new_csv(path) as write:
        write(["class", "images", "right", "precision", "recall", "f1", "most_often_taken_for"])
        for score in scores:
            values = [number(value) for value in (score.precision, score.recall, score.f1)]
            write([score.name, score.images, score.right, *values, score.confused_with or ""])


def number(value: float | None) -> str:
    """Returns a number for a CSV; empty if there is none."""
    return "" if value is None else f"{value:.6g}"


@contextmanager
def new_csv(path: Path) -> Iterator[Callable[[Sequence[object]], object]]:
    """Yields a function that adds a row to a CSV file, which appears when it is whole."""
    with (
        whole(path) as part,
        part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield csv.writer(file).writerow
