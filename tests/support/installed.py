"""Inputs of engines for the runtimes that are installed here."""

from __future__ import annotations

from typing import Any

from builders.backends import get_backend
from support.records import build_inputs
from zoo.client.host import installed
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange
from zoo.schema.targets import RuntimeKind


def installed_inputs(kind: RuntimeKind, *archs: str, **overrides: Any) -> BuildInputs:
    """Returns the inputs of an engine that the installed runtime of a kind builds."""
    toolchain = installed(kind)
    assert toolchain is not None, f"{kind} is not installed"
    defaults: dict[str, Any] = {
        "model": "toy",
        "archs": archs,
        "toolchain": toolchain,
        "profiles": (BatchRange(opt=4, max=8),),
        "options": get_backend(kind).options(toolchain, {}).model_dump(mode="json"),
    }
    return build_inputs(**{**defaults, **overrides})
