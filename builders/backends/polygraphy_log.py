"""Errors that TensorRT's builder logs through Polygraphy; it reports reasons nowhere else.

Import this after the variable that decides which TensorRT Polygraphy drives has been set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from polygraphy.logger import G_LOGGER

from zoo.util.causes import plain

_LOGGER = "Polygraphy"  # G_LOGGER's, once it logs through Python


class LoggedErrors(logging.Handler):
    """Prints what Polygraphy logs, as it does itself, and keeps the errors."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []

    @property
    def told(self) -> str | None:
        """The errors, without Polygraphy's marks and colours; None if there are none.

        The cause may be the first or the last of them, so all are given, each once.
        """
        return plain("; ".join(dict.fromkeys(self._errors))) or None

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message and keeps an error."""
        message = record.getMessage()
        print(message)
        if record.levelno == logging.ERROR:  # a critical one is also raised
            self._errors.append(plain(message).removeprefix("[E] "))


@contextmanager
def logged_errors() -> Iterator[LoggedErrors]:
    """Yields what collects the errors that are logged meanwhile."""
    logger, errors = logging.getLogger(_LOGGER), LoggedErrors()
    propagates, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(1)  # Polygraphy filters by its own severities
    logger.addHandler(errors)
    G_LOGGER.use_python_logging_system = True
    try:
        yield errors
    finally:
        G_LOGGER.use_python_logging_system = False
        logger.removeHandler(errors)
        logger.setLevel(level)
        logger.propagate = propagates
