"""Sessions, which load and run engines.

:mod:`zoo.schema.runtimes` maps runtimes to session modules. A runtime's library is imported when
the first of its engines is opened.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.runtime.base import Session
from zoo.schema.closed import Unknown
from zoo.schema.keys import BuildInputs
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, title_of
from zoo.util.errors import RunError

__all__ = ["Session", "open_session"]


def open_session(
    engine: Path, inputs: BuildInputs, size: int | None = None, **options: Any
) -> Session:
    """Loads an engine. Check its digest first: engines contain native code.

    Args:
        engine: Path of the engine file.
        inputs: The build inputs in the engine's record.
        size: Expected size in bytes, if known.
        options: Options of the runtime's session, such as ``cuda_graphs`` of TensorRT.

    Raises:
        RunError: The runtime is unknown to this version, or the engine can't be loaded.
        MissingPackageError: The runtime is not installed.
    """
    kind = inputs.toolchain.kind
    if isinstance(kind, Unknown):
        raise RunError(
            f"{engine.name} is a {title_of(kind)} engine, which this version does not support",
            hint="supported runtimes: " + ", ".join(map(title_of, Runtime)),
        )
    module = import_module(RUNTIME_FACTS[kind].session)
    opened: Session = module.open_session(engine, inputs, size, **options)
    return opened
