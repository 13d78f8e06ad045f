"""Progress bars: on a terminal, in a notebook, or as a line now and then.

A bar shows what is done, the total, the rate and the time left. Each is None until it is known.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from zoo.util.terminal import harmless

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY = 10.0
"""Seconds between lines where there is neither a terminal nor a notebook."""

_REDRAWN = 0.2  # seconds between drawings in a notebook


class Display(Protocol):
    """Where a bar is drawn."""

    def draw(self, words: str, done: float, total: float | None) -> None:
        """Shows the state, or not, if it was shown a moment ago."""
        ...

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        ...


class Bar:
    """A progress bar.

    Args:
        display: Where it is drawn.
        words: Returns an amount as text, such as ``5 images`` or ``3.1 MiB``.
        total: How much there is to do; None if unknown.
        task: What is done, if that needs a name: it is shown at once, and before amounts.

    Attributes:
        total: The same; may be set later.
    """

    def __init__(
        self,
        display: Display,
        words: Callable[[float], str],
        total: float | None = None,
        task: str = "",
    ) -> None:
        self._display = display
        self._words = words
        self._task = task
        self.total = total
        self._started = time.monotonic()
        self._first: float | None = None
        self._done = 0.0
        if task:
            display.draw(task, 0, total)

    def step(self, amount: float = 1) -> None:
        """Adds to what is done."""
        self.show(self._done + amount, before=0)

    def show(self, done: float, *, before: float | None = None, note: str = "") -> None:
        """Shows what is done.

        Args:
            done: How much, in all.
            before: How much of that was done before this run, so that the rate leaves it out; by
                default what the first call says.
            note: What else to say.
        """
        if self._first is None:
            self._first = done if before is None else before
        self._done = done
        seconds = time.monotonic() - self._started
        rate = (done - self._first) / seconds if seconds > 0 else 0.0
        parts = [self._words(done)]
        if self.total is not None:
            parts[0] = f"{parts[0].partition(' ')[0]} of {self._words(self.total)}"
        if rate > 0:
            parts.append(f"{_rounded(self._words, rate)}/s")
            if self.total is not None:
                parts.append(f"{clock(max(0.0, self.total - done) / rate)} left")
        if note:
            parts.append(note)
        before_amounts = f"{self._task}: " if self._task else ""
        self._display.draw(before_amounts + ", ".join(parts), done, self.total)

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._display.say(text)


def clock(seconds: float) -> str:
    """Returns a duration as ``0:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rounded(words: Callable[[float], str], rate: float) -> str:
    return words(rate if rate < 10 else round(rate))


def amount_of(one: str, many: str | None = None) -> Callable[[float], str]:
    """Returns a function for amounts of something that is counted: ``1 image``, ``2.5 images``."""

    def words(amount: float) -> str:
        number = f"{amount:,.0f}" if float(amount).is_integer() else f"{amount:,.1f}"
        return f"{number} {one if number == '1' else many or one + 's'}"

    return words


def mebibytes(amount: float) -> str:
    """Returns a size as text: ``3.1 MiB``."""
    return f"{amount / 2**20:,.1f} MiB"


@contextmanager
def open_bar(
    words: Callable[[float], str], total: float | None = None, task: str = ""
) -> Iterator[Bar]:
    """Opens a bar on the terminal of standard error, in a notebook, or else as lines."""
    if in_notebook():
        yield Bar(_Notebook(), words, total, task)
    elif sys.stderr.isatty():
        with _terminal() as display:
            yield Bar(display, words, total, task)
    else:
        yield Bar(_Lines(), words, total, task)


def is_watched() -> bool:
    """Returns whether somebody watches: in a notebook, or where standard error is a terminal."""
    return in_notebook() or sys.stderr.isatty()


def in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter, Colab


class _Lines:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def draw(self, words: str, done: float, total: float | None) -> None:
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            print(words, file=sys.stderr)

    def say(self, text: str) -> None:
        print(harmless(text), file=sys.stderr)


class _Terminal:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def draw(self, words: str, done: float, total: float | None) -> None:
        self._bar.update(self._task, description=words, completed=done, total=total)

    def say(self, text: str) -> None:
        self._bar.console.print(harmless(text), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _terminal() -> Iterator[_Terminal]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results would go to standard error
    ) as bar:
        yield _Terminal(bar, bar.add_task("", total=None))


class _Notebook:
    """Draws with what every notebook has; rich's own bar needs ipywidgets there."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = 0.0

    def draw(self, words: str, done: float, total: float | None) -> None:
        now = time.monotonic()
        if now - self._last < _REDRAWN and done != total:
            return
        self._last = now
        value = "" if total is None else f" value='{done:.0f}' max='{max(total, 1):.0f}'"
        from IPython.display import display

        page = {  # consoles of Jupyter show the text
            "text/html": f"<progress{value}></progress> {escape(words)}",
            "text/plain": words,
        }
        if self._handle is None:
            self._handle = display(page, raw=True, display_id=True)
        else:
            self._handle.update(page, raw=True)

    def say(self, text: str) -> None:
        print(harmless(text), file=sys.stderr)
