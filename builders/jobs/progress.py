"""Progress of jobs: events, and their display.

A worker writes events to its standard output, one JSON object per line; the farm reads them and
shows bars on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from zoo.util.loading import parse_json
from zoo.util.terminal import drawing_output, harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a stage.

    Attributes:
        stage: ``weights``, ``export``, ``build``, ``verify``, ``benchmark``.
        done: Number of finished steps.
        total: Number of all steps.
        note: Description of the current step.
    """

    stage: str
    done: int
    total: int
    note: str = ""

    def to_line(self) -> str:
        """Returns the event as one line of JSON."""
        return json.dumps(vars(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Event | None:
        """Parses an event; returns None for any other line."""
        try:
            data = parse_json(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict):
            return None
        texts, numbers = ("stage", "note"), ("done", "total")
        if not all(isinstance(data.get(name), str) for name in texts):
            return None
        if not all(type(data.get(name)) is int for name in numbers):
            return None
        return cls(**{name: data[name] for name in (*texts, *numbers)})


Report = Callable[[Event], None]
"""Called with each event of a stage."""


def silent(event: Event) -> None:
    """A :data:`Report` that shows nothing."""


def event_writer(stream: TextIO) -> Report:
    """Returns a :data:`Report` that writes events to a stream, one per line."""

    def report(event: Event) -> None:
        stream.write(event.to_line())
        stream.flush()

    return report


class Display:
    """Shows the progress of many jobs: bars on a terminal, one plain line per stage elsewhere.

    Thread-safe.

    Args:
        console: Where to show it; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console  # late: a plan and a worker show nothing

        self._console = console or Console(file=drawing_output())
        self._lock = threading.Lock()
        self._live: Progress | None = None  # shared: a terminal has one live display
        self._jobs = 0

    def say(self, text: str) -> None:
        """Prints one line."""
        self._console.print(harmless(text), highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def job(self, label: str) -> Iterator[Report]:
        """Shows one job while the context lasts; yields the function that takes its events.

        A job's first event creates its bar, so a job that waits for a worker has none.
        """
        if not self._console.is_terminal:
            yield self._plain(label)
            return
        bars: dict[str, TaskID] = {}
        progress = self._begin()
        try:
            yield _bars(progress, label, bars)
        finally:
            self._end(progress, bars)

    def _begin(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._live is None:
                columns = (
                    TextColumn("{task.description:<32}", markup=False),
                    BarColumn(bar_width=24),
                    TextColumn("{task.fields[note]}", markup=False),
                    TimeElapsedColumn(),
                )
                self._live = Progress(*columns, console=self._console, transient=True)
                self._live.start()
            self._jobs += 1
            return self._live

    def _end(self, progress: Progress, bars: dict[str, TaskID]) -> None:
        with self._lock:
            for bar in bars.values():
                progress.remove_task(bar)
            self._jobs -= 1
            if self._jobs == 0:
                progress.stop()
                self._live = None

    def _plain(self, label: str) -> Report:
        seen: set[str] = set()

        def report(event: Event) -> None:
            if event.stage not in seen:
                seen.add(event.stage)
                self.say(f"{label}: {event.stage} {event.note}".rstrip())

        return report


def _bars(progress: Progress, label: str, bars: dict[str, TaskID]) -> Report:
    def report(event: Event) -> None:
        note = harmless(event.note)
        if event.stage not in bars:
            description = harmless(f"{label} · {event.stage}")
            bars[event.stage] = progress.add_task(description, total=event.total, note=note)
        progress.update(bars[event.stage], completed=event.done, total=event.total, note=note)

    return report
