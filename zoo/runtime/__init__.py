"""Sessions: an engine, loaded and ready to give features.

One literal table says which module serves which runtime; a runtime's library is imported when the
first engine of its kind is opened.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from zoo.errors import RunError
from zoo.runtime.base import Session
from zoo.target import RUNTIME_NAMES, RuntimeKind

__all__ = ["SESSIONS", "Session", "open_session"]

SESSIONS: dict[RuntimeKind, str] = {"ort": "zoo.runtime.onnxruntime"}


def open_session(kind: RuntimeKind, engine: Path, max_batch: int) -> Session:
    """Loads an engine. It must have been checked against its digest: an engine is native code.

    Args:
        kind: Its runtime.
        engine: Its file.
        max_batch: Its largest batch; what is larger is run in pieces.

    Raises:
        RunError: This version has no session for that runtime, or the engine does not load.
    """
    if kind not in SESSIONS:
        raise RunError(
            f"{engine.name} is a {RUNTIME_NAMES[kind]} engine, which this version does not run",
            hint="it runs engines of " + ", ".join(RUNTIME_NAMES[name] for name in SESSIONS),
        )
    opened: Session = import_module(SESSIONS[kind]).open_session(engine, max_batch)
    return opened
