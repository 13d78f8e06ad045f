"""``zoo predict``: what a head predicts of photos and of folders of photos."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli import caft
from zoo.cli.support import output_file
from zoo.util.errors import DatasetError, RunError, UsageError
from zoo.util.files import whole
from zoo.util.names import counted
from zoo.util.terminal import harmless

if TYPE_CHECKING:
    from zoo.caft.head import Floats, Head
    from zoo.caft.predictions import Prediction

_SUFFIXES = (".csv", ".jsonl")
_SURE = 0.5  # probability from which a label is predicted

Write = Callable[["Prediction"], object]


def predict(options: argparse.Namespace) -> int:
    """Predicts classes, numbers or labels of photos and folders of photos with a trained head."""
    from zoo.caft.predictions import NO_PHOTO, PhotoPaths, predictions
    from zoo.caft.progress import photo_progress

    output = _output(options)
    head, photos = caft._head(options), PhotoPaths(options.photos)
    photos.check()
    tally = _Tally(head)
    with (
        caft._extractor(options, options.model, head.card.identity) as extractor,
        photo_progress(PhotoPaths(options.photos)) if output else nullcontext(lambda: None) as step,
    ):
        head.check(extractor, allow_other_engine=options.allow_other_engine)
        with _writer(head, output, options) as write:
            for prediction in predictions(head, extractor, photos, tally.skip):
                write(prediction)
                tally.add(prediction)
                step()
            if not tally.predicted and (output or not tally.skipped_named):
                not_written = f"; {output} was not written" if output else ""
                raise DatasetError(f"none of the photos could be used{not_written}", hint=NO_PHOTO)
    tally.tell(output, [line for notes in photos.notes for line in notes.lines])
    if tally.skipped_named:
        of = tally.skipped_named + tally.predicted + tally.skipped_found
        raise RunError(f"{tally.skipped_named:,} of {counted(of, 'photo')} could not be used")
    return 0


class _Tally:
    """Counts what was predicted and skipped, and how often the folder's class was predicted."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._classes = {name: number for number, name in enumerate(head.card.labels)}
        self._cells: Counter[tuple[int, int]] = Counter()
        self.predicted = self.skipped_named = self.skipped_found = 0

    def skip(self, photo: str, reason: str, named: bool) -> None:
        """Counts and names a photo that can't be used."""
        self.skipped_named += named
        self.skipped_found += not named
        print(harmless(f"skipped {photo}: {reason}"), file=sys.stderr)

    def add(self, prediction: Prediction) -> None:
        """Counts a prediction."""
        self.predicted += 1
        actual = self._classes.get(prediction.label or "")
        if actual is not None and _classifies(self._head):
            self._cells[actual, int(prediction.outputs.argmax())] += 1

    def tell(self, output: Path | None, notes: Iterable[str]) -> None:
        """Prints what was predicted, and how much of it is right where folders are classes."""
        from zoo.caft.report import wilson
        from zoo.caft.scores import class_scores, score_lines

        if output:
            skipped = self.skipped_named + self.skipped_found
            print(f"{output}: {counted(self.predicted, 'photo')}, {skipped:,} skipped")
        elif self.skipped_found:
            print(f"{counted(self.skipped_found, 'photo')} skipped", file=sys.stderr)
        for note in notes:
            print(harmless(f"  {note}"), file=sys.stderr)
        total = sum(self._cells.values())
        if not total:
            return
        right = sum(number for (actual, guess), number in self._cells.items() if actual == guess)
        low, high = wilson(right, total)
        print(
            f"{right / total:.1%} of {counted(total, 'photo')} in folders named as classes are "
            f"right (95% interval {low:.1%} to {high:.1%})",
            file=sys.stderr,
        )
        cells = [(*pair, number) for pair, number in self._cells.items()]
        for line in score_lines(class_scores(self._head.card.labels, cells)):
            print(harmless(line), file=sys.stderr)


def _output(options: argparse.Namespace) -> Path | None:
    """Returns the file to write; None for standard output.

    Raises:
        UsageError: It has another suffix, or is no place for a file.
    """
    if not options.output:
        return None
    output = output_file(options.output)
    if output.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{output}: predictions are written as {' or '.join(_SUFFIXES)}",
            hint=f"for example -o {output.with_suffix('.csv')}",
        )
    return output


@contextmanager
def _writer(head: Head, output: Path | None, options: argparse.Namespace) -> Iterator[Write]:
    """Yields what writes a prediction; a file appears when all are written."""
    from zoo.caft.scores import new_csv

    if output is None:
        answer = _as_json if options.json else _as_text
        yield lambda prediction: print(answer(prediction, head, options.top))
    elif output.suffix.lower() == ".csv":
        with new_csv(output) as write:
            write(_columns(head))
            yield lambda prediction: write(_cells(prediction, head))
    else:
        with whole(output) as part, part.open("w", encoding="utf-8") as file:
            yield lambda prediction: file.write(_as_json(prediction, head, options.top) + "\n")


def _columns(head: Head) -> list[str]:
    """Returns the columns of a CSV file: the answer, and the score of each class."""
    from zoo.caft.task import Task

    each = [f"p({name})" for name in head.card.labels]
    match head.card.task:
        case Task.CLASSIFICATION:
            return ["photo", "predicted", "probability", "actual", *each]
        case Task.MULTI_LABEL:
            return ["photo", "predicted", *each]
        case Task.REGRESSION:
            return ["photo", *head.card.labels]


def _cells(prediction: Prediction, head: Head) -> list[str]:
    from zoo.caft.scores import number
    from zoo.caft.task import Task

    row = prediction.outputs
    numbers = [number(float(value)) for value in row]
    match head.card.task:
        case Task.CLASSIFICATION:
            best = int(row.argmax())
            actual = prediction.label if prediction.label in head.card.labels else ""
            return [prediction.photo, head.card.labels[best], numbers[best], actual or "", *numbers]
        case Task.MULTI_LABEL:
            return [prediction.photo, ";".join(name for name, _ in _sure(row, head)), *numbers]
        case Task.REGRESSION:
            return [prediction.photo, *numbers]


def _classifies(head: Head) -> bool:
    from zoo.caft.task import Task

    return head.card.task is Task.CLASSIFICATION


def _best(row: Floats, head: Head, most: int) -> list[tuple[str, float]]:
    """Returns the most likely classes or labels, with their probabilities."""
    return [(head.card.labels[n], float(row[n])) for n in row.argsort()[::-1][:most]]


def _sure(row: Floats, head: Head) -> list[tuple[str, float]]:
    """Returns the labels that are predicted, the most likely first."""
    return [pair for pair in _best(row, head, len(row)) if pair[1] >= _SURE]


def _as_json(prediction: Prediction, head: Head, top: int) -> str:
    from zoo.caft.task import Task

    row = prediction.outputs
    answer: dict[str, str | list[str] | dict[str, float]] = {"photo": prediction.photo}
    match head.card.task:
        case Task.CLASSIFICATION:
            answer["classes"] = dict(_best(row, head, top))
        case Task.MULTI_LABEL:
            answer["labels"] = [name for name, _ in _sure(row, head)]
            answer["probabilities"] = dict(_best(row, head, top))
        case Task.REGRESSION:
            answer["values"] = dict(zip(head.card.labels, map(float, row), strict=True))
    return json.dumps(answer, ensure_ascii=False)


def _as_text(prediction: Prediction, head: Head, top: int) -> str:
    from zoo.caft.task import Task

    row = prediction.outputs
    match head.card.task:
        case Task.CLASSIFICATION:
            words = [f"{name} {part:.1%}" for name, part in _best(row, head, top)]
        case Task.MULTI_LABEL:
            words = [f"{name} {part:.1%}" for name, part in _sure(row, head)]
            if not words:
                name, part = _best(row, head, 1)[0]
                words = [f"no label; the most likely is {name} {part:.1%}"]
        case Task.REGRESSION:
            words = [
                f"{name} {value:.6g}" for name, value in zip(head.card.labels, row, strict=True)
            ]
    return f"{prediction.photo}: {', '.join(words)}"
