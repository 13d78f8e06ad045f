"""Backends: what turns an ONNX into an engine. :mod:`zoo.schema.runtimes` names their modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from builders.backends.base import Backend
from zoo.schema.closed import Unknown
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, title_of
from zoo.schema.targets import RuntimeKind, Toolchain
from zoo.util.errors import TargetError

__all__ = ["Backend", "check_options", "get_backend"]


def get_backend(kind: RuntimeKind) -> Backend:
    """Returns the backend of a runtime. Its library is imported when it first builds.

    Raises:
        TargetError: There is none.
    """
    if isinstance(kind, Unknown):
        names = ", ".join(map(title_of, Runtime))
        raise TargetError(f"no backend builds '{kind}' engines", hint=f"there is one for {names}")
    backend: Backend = import_module(RUNTIME_FACTS[kind].backend).BACKEND
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
