"""Backends: what turns an ONNX into an engine. A small protocol and one literal table."""

from __future__ import annotations

from importlib import import_module

from builders.backends.base import Backend
from zoo.errors import TargetError
from zoo.target import RUNTIME_NAMES, RuntimeKind

__all__ = ["BACKENDS", "Backend", "get_backend"]

BACKENDS: dict[RuntimeKind, str] = {
    "ort": "builders.backends.onnxruntime",
    "rtx": "builders.backends.tensorrt_rtx",
    "trt": "builders.backends.tensorrt",
}


def get_backend(kind: RuntimeKind) -> Backend:
    """Returns the backend of a runtime. Its library is imported when it first builds.

    Raises:
        TargetError: There is none.
    """
    if kind not in BACKENDS:
        names = ", ".join(RUNTIME_NAMES[name] for name in BACKENDS)
        raise TargetError(f"no backend builds '{kind}' engines", hint=f"there is one for {names}")
    backend: Backend = import_module(BACKENDS[kind]).BACKEND
    return backend
