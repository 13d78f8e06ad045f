"""Sessions: an engine, loaded and ready to give features.

:mod:`zoo.schema.runtimes` says which module serves which runtime; a runtime's library is imported
when the first engine of its kind is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.runtime.base import Session
from zoo.schema.closed import Unknown
from zoo.schema.keys import BuildInputs
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, title_of
from zoo.util.errors import RunError

__all__ = ["SESSIONS", "Session", "open_session"]


SESSIONS: Mapping[str, str] = {kind: facts.session for kind, facts in RUNTIME_FACTS.items()}
"""Runtime to the module whose ``open_session`` runs its engines."""


def open_session(
    engine: Path, inputs: BuildInputs, size: int | None = None, **options: Any
) -> Session:
    """Loads an engine. It must have been checked against its digest: an engine is native code.

    Args:
        engine: Its file.
        inputs: What it was made from, as its record says.
        size: Bytes that it should have, when that is known.
        options: Of the runtime's own session, such as ``cuda_graphs`` of TensorRT.

    Raises:
        RunError: This version has no session for that runtime, or the engine does not load.
        MissingPackageError: The runtime is not installed.
    """
    kind = inputs.toolchain.kind
    if isinstance(kind, Unknown):
        raise RunError(
            f"{engine.name} is a {title_of(kind)} engine, which this version does not run",
            hint="it runs engines of " + ", ".join(map(title_of, Runtime)),
        )
    module = import_module(RUNTIME_FACTS[kind].session)
    opened: Session = module.open_session(engine, inputs, size, **options)
    return opened
