"""Sessions: an engine, loaded and ready to give features.

One literal table says which module serves which runtime; a runtime's library is imported when the
first engine of its kind is opened.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.key import BuildInputs
from zoo.runtime.base import Session
from zoo.target import RUNTIME_NAMES, RuntimeKind

__all__ = ["SESSIONS", "Session", "open_session"]

SESSIONS: dict[RuntimeKind, str] = {
    "ort": "zoo.runtime.onnxruntime",
    "rtx": "zoo.runtime.tensorrt",
    "trt": "zoo.runtime.tensorrt",
}


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
    if kind not in SESSIONS:
        raise RunError(
            f"{engine.name} is a {RUNTIME_NAMES.get(kind, kind)} engine, which this version does "
            "not run",
            hint="it runs engines of " + ", ".join(RUNTIME_NAMES[name] for name in SESSIONS),
        )
    module = import_module(SESSIONS[kind])
    opened: Session = module.open_session(engine, inputs, size, **options)
    return opened
