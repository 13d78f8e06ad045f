"""Backends: what turns an ONNX into an engine. A small protocol and one literal table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from builders.backends.base import Backend
from zoo.errors import TargetError
from zoo.target import RUNTIME_NAMES, RuntimeKind, Toolchain

__all__ = ["BACKENDS", "Backend", "check_options", "get_backend"]

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


def check_options(toolchains: Iterable[Toolchain], asked: Mapping[str, str]) -> None:
    """Refuses builder options that one of the toolchains does not take, before anything is done.

    Args:
        toolchains: What will build.
        asked: What ``BUILDER=`` says, name to value.

    Raises:
        UsageError: There is no such option, or not that value.
    """
    for toolchain in toolchains:
        get_backend(toolchain.kind).options(toolchain, asked)
