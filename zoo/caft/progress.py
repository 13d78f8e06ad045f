"""Shows the progress of a pass or of training: a bar on a terminal, else occasional lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.util.bars import Bar, amount_of, is_watched, open_bar
from zoo.util.errors import ZooError

if TYPE_CHECKING:
    from zoo.caft.features import Pass
    from zoo.caft.report import Epoch


class Counting:
    """Counts samples in a thread, while a pass already runs.

    Args:
        samples: They are iterated in the thread, so nothing else may iterate the same object; None
            if they can't be counted without reading them.
    """

    def __init__(self, samples: Iterable[Any] | None) -> None:
        self.total: int | None = None
        self._stop = threading.Event()
        if samples is not None:
            self._samples = samples
            threading.Thread(target=self._count, name="count", daemon=True).start()

    def _count(self) -> None:
        total = 0
        try:
            for _ in self._samples:
                total += 1
                if self._stop.is_set():
                    return
        except (ZooError, OSError):
            return  # the pass itself reports it
        self.total = total

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()


def countable(data: Any, **chosen: Any) -> Iterable[Any] | None:
    """Returns the samples of a data set to be counted; None if that would read the images."""
    from zoo.caft.sources import Kind, kind_of, open_source

    if isinstance(data, (str, Path)):
        counted = kind_of(data) in (Kind.FOLDER, Kind.LIST)
        return open_source(data, **chosen) if counted else None
    try:
        return range(len(data))
    except TypeError:  # a path, or a data set that streams
        return None


class PassProgress:
    """Shows the progress of a pass.

    Args:
        bar: The bar.
        counting: Counts the images.
    """

    def __init__(self, bar: Bar, counting: Counting) -> None:
        self._bar = bar
        self._counting = counting

    def show(self, state: Pass) -> None:
        """Shows the state of the pass."""
        done = state.before + state.images
        total = self._counting.total
        self._bar.total = None if total is None else max(total, done)
        self._bar.show(done, before=state.before)

    def say(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        self._bar.say(text)


@contextmanager
def pass_progress(data: Any, **chosen: Any) -> Iterator[PassProgress]:
    """Yields the display of a pass over a data set; ``chosen`` as for ``open_source``."""
    counting = Counting(countable(data, **chosen))
    try:
        with open_bar(amount_of("image")) as bar:
            yield PassProgress(bar, counting)
    finally:
        counting.stop()


@contextmanager
def photo_progress(photos: Iterable[Any]) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each photo, and shows how far it is.

    Args:
        photos: The photos to count; iterated in another thread.
    """
    counting = Counting(photos)
    try:
        with open_bar(amount_of("photo")) as bar:

            def step() -> None:
                bar.total = counting.total
                bar.step()

            yield step
    finally:
        counting.stop()


@contextmanager
def amount_progress(noun: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that adds to what is done, and shows how much of the total that is.

    Args:
        noun: What is counted.
        total: How many there are.
    """
    with open_bar(amount_of(noun), total) as bar:
        yield bar.step


class Progress(Protocol):
    """Shows how far each task of a function is, one after the other."""

    def __call__(
        self, task: str, noun: str = "", total: int | None = None
    ) -> AbstractContextManager[Callable[[int], object]]:
        """Opens the display of a task, which yields a function that adds to what is done.

        Args:
            task: Its name.
            noun: What is counted, if anything is.
            total: How many there are; None if unknown.
        """
        ...


@contextmanager
def task_progress(
    task: str, noun: str = "", total: int | None = None
) -> Iterator[Callable[[int], object]]:
    """A :class:`Progress` on the terminal or in a notebook, or else as occasional lines."""
    with open_bar(amount_of(noun), total, task) as bar:
        yield bar.step


@contextmanager
def unseen(
    task: str, noun: str = "", total: int | None = None
) -> Iterator[Callable[[int], object]]:
    """A :class:`Progress` that shows nothing."""
    yield lambda amount: None


@contextmanager
def epoch_progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Yields a function that shows an epoch; it shows nothing if nobody watches."""
    if not is_watched():
        yield lambda epoch: None
        return
    with open_bar(amount_of("epoch"), epochs) as bar:

        def show(epoch: Epoch) -> None:
            words = f"loss {epoch.val_loss:.4f}"
            if epoch.val_accuracy is not None:
                words += f", accuracy {epoch.val_accuracy:.1%}"
            bar.show(epoch.number, before=0, note=words)

        yield show
