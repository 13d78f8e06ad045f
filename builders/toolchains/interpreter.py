"""The Python interpreter that builds and verifies, if it is not the farm's own.

Exports need torch and builds need the runtime, but some runtimes need a Python that is too old for
torch: TensorRT 8.6 has no wheels for Python after 3.10.
"""

from __future__ import annotations

import subprocess
import sys

from pydantic import TypeAdapter, ValidationError

from builders.paths import ROOT
from builders.toolchains.worker_environment import worker_environment
from zoo.schema.targets import RuntimeKind, Toolchain
from zoo.util.causes import end_of
from zoo.util.errors import UsageError
from zoo.util.loading import parse_json

_TOOLCHAINS = TypeAdapter(dict[RuntimeKind, Toolchain])


def worker_command(python: str) -> tuple[str, ...]:
    """Returns the command that starts a worker in a Python; empty for the farm's own."""
    return (python or sys.executable, "-m", "builders.worker")


def toolchains_of(python: str) -> dict[RuntimeKind, Toolchain]:
    """Returns the runtimes that are installed in another Python.

    Raises:
        UsageError: The Python does not start or lacks packages that a worker needs.
    """
    command = [python, "-m", "zoo.client.host"]
    try:
        environment = worker_environment(weights=False)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"BUILDER_PYTHON={python} does not start: {error}",
            hint="give the path of a Python interpreter",
        ) from error
    try:
        return _TOOLCHAINS.validate_python(parse_json(done.stdout))
    except (ValueError, ValidationError) as error:
        message = end_of(done.stderr)
        raise UsageError(
            f"BUILDER_PYTHON={python} can't run a worker: {message}",
            hint=f"{python} -m pip install '.[worker]' and the runtime; torch is not needed there",
        ) from error
