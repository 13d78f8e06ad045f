"""Backends build engines from ONNX. :mod:`zoo.schema.runtimes` names their modules."""

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
    """Returns the backend of a runtime. Its library is imported by the first build.

    Raises:
        TargetError: The runtime has no backend.
    """
    if isinstance(kind, Unknown):
        names = ", ".join(map(title_of, Runtime))
        raise TargetError(
            f"no backend builds '{kind}' engines", hint=f"there are backends for {names}"
        )
    backend: Backend = import_module(RUNTIME_FACTS[kind].backend).BACKEND
    return backend


def check_options(toolchains: Iterable[Toolchain], requested: Mapping[str, str]) -> None:
    """Checks that every toolchain supports the requested builder options, before any work starts.

    Args:
        toolchains: The toolchains that will build.
        requested: The options in ``BUILDER=``, name to value.

    Raises:
        UsageError: An option is unknown, or its value is not allowed.
    """
    for toolchain in toolchains:
        get_backend(toolchain.kind).options(toolchain, requested)
