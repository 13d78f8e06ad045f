"""Shows the progress of a pass or of training: a bar on a terminal, else occasional lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from zoo.caft.features import Pass
    from zoo.caft.report import Epoch

_EVERY = 10.0
"""Seconds between lines if there is no terminal."""


class PassProgress:
    """Shows the progress of a pass; the number of images is not known in advance."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=None)
        self._last = time.monotonic()

    def show(self, state: Pass) -> None:
        """Shows the state of the pass; without a terminal, only every 10 seconds."""
        words = f"{state.before + state.images:,} images, {state.images_per_second:.1f} images/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=words)
        elif time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            print(words, file=sys.stderr)

    def say(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr)


@contextmanager
def pass_progress() -> Iterator[PassProgress]:
    """Yields the display of a pass."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PassProgress(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield PassProgress(bar)


@contextmanager
def epoch_progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Yields a function that shows an epoch; without a terminal it shows nothing."""
    console = Console(stderr=True)
    columns = (
        TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
    )  # fmt: skip
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=epochs)

        def show(epoch: Epoch) -> None:
            words = f"loss {epoch.val_loss:.4f}"
            if epoch.val_accuracy is not None:
                words += f", accuracy {epoch.val_accuracy:.1%}"
            bar.update(task, completed=epoch.number, description=words)

        yield show
