"""Locks of tactics: files of published engines, named by digest in a build's inputs."""

from __future__ import annotations

import re

from builders.backends.tensorrt_api import FREE
from zoo.schema.keys import BuildInputs

LOCKED = "locked"
"""The value of the option that stands for the lock of the published engine."""

TACTICS = "tactics"
"""Name of the builder option, and of the file beside an engine."""


def lock_of(inputs: BuildInputs) -> str | None:
    """Returns the digest of the lock that a build has to keep to, None without one."""
    stated = str(inputs.options.get(TACTICS, FREE))
    return stated if re.fullmatch("[0-9a-f]{64}", stated) else None


def records_tactics(inputs: BuildInputs) -> bool:
    """Whether a build records its tactics or keeps to recorded ones."""
    return inputs.options.get(TACTICS, FREE) != FREE
