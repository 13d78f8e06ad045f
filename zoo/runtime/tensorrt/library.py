"""Imports the TensorRT that an engine needs, and keeps what it logs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zoo.schema.build_hint import build_hint
from zoo.schema.closed import Unknown
from zoo.schema.keys import BuildInputs
from zoo.schema.runtimes import RUNTIME_FACTS, title_of
from zoo.schema.targets import RuntimeLine
from zoo.util.causes import plain
from zoo.util.errors import MissingPackageError, RunError

_MOST_ERRORS = 8  # a session that goes on may log many


def import_runtime(inputs: BuildInputs) -> Any:
    """Imports the runtime of an engine.

    Raises:
        MissingPackageError: It is not installed, or its libraries are not found.
        RunError: Another version is installed.
    """
    kind, wanted = inputs.toolchain.kind, inputs.toolchain.version
    name = title_of(kind)
    if isinstance(kind, Unknown):
        raise RunError(f"the engine requires {name} {wanted}, which this version does not support")
    try:
        trt = import_module(RUNTIME_FACTS[kind].module)
    except (ImportError, OSError) as error:
        raise MissingPackageError(
            f"the engine requires {name} {wanted}, which can't be imported: {error}",
            hint=RUNTIME_FACTS[kind].install,
        ) from error
    have = str(trt.__version__).split(".")
    common = min(len(have), wanted.count(".") + 1)
    exact = have[:common] == wanted.split(".")[:common]
    if not exact and not inputs.options.get("version_compatible"):
        build = build_hint(inputs.model, line=RuntimeLine(kind, ".".join(have[:2])))
        raise RunError(
            f"the engine requires {name} {wanted}, but {trt.__version__} is installed",
            hint=f"zoo show {inputs.model} lists engines of other versions"
            + (f"; {build}" if build else ""),
        )
    return trt


def make_log(trt: Any) -> Any:
    """Returns a logger that keeps errors, the only place where TensorRT gives reasons.

    Its ``last`` is the last error and ``told`` all of them, each once, as plain text.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""
            self._errors: dict[str, None] = {}

        @property
        def told(self) -> str:
            return plain("; ".join(self._errors))

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last = plain(message)
                if len(self._errors) < _MOST_ERRORS:
                    self._errors[self.last] = None

    return Log()
