"""Progress bar for downloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.stores import Progress
from zoo.util.bars import is_watched, mebibytes, open_bar


@contextmanager
def download_bar(size: int) -> Iterator[Progress | None]:
    """Shows a bar on a terminal or in a notebook; yields a callback for bytes read, or None."""
    if not is_watched():
        yield None
        return
    with open_bar(mebibytes, size) as bar:
        yield bar.step
