"""Parses ONNX models that others made, in a process that holds no keys.

A parser may have bugs, and native code that crashes takes its process with it. So whoever stores or
signs a model starts this module as a child process, which gets none of the farm's secrets::

    python -m builders.jobs.onnx_check load MODEL     # ONNX's checker and ONNX Runtime
    python -m builders.jobs.onnx_check parse MODEL    # the checker alone

It exits with 0, or with another status and the reason as the last line on standard error.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from builders.toolchains.worker_environment import worker_environment
from zoo.util.causes import cause_of, end_of
from zoo.util.errors import JobError, MissingPackageError, ZooError

SECONDS = 900
"""Time limit of a child process."""

_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def run_apart(module: str, *arguments: str, text: str = "") -> str:
    """Runs a module of the farm in a process without secrets; returns what it wrote.

    Args:
        module: The module.
        arguments: Its arguments.
        text: Its standard input.

    Raises:
        MissingPackageError: A package is not installed here.
        JobError: It failed; the message is the last line that it wrote.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            input=text, capture_output=True, text=True, errors="replace", check=False,
            timeout=SECONDS,
            env={"OMP_WAIT_POLICY": "PASSIVE", **worker_environment(weights=False)},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise JobError(f"it was not done after {SECONDS} seconds") from error
    if done.returncode < 0:
        raise JobError(f"the process that reads it was killed by signal {-done.returncode}")
    if done.returncode == MissingPackageError.exit_code:
        raise MissingPackageError(
            f"engines can't be parsed here: {end_of(done.stderr)}",
            hint="install the farm with all its packages: make",
        )
    if done.returncode:
        raise JobError(end_of(done.stderr, f"status {done.returncode}"))
    return done.stdout


def check_onnx(path: Path, *, load: bool) -> None:
    """Parses a model in a child process.

    Args:
        path: The model.
        load: Whether ONNX Runtime must be able to load it, as an engine.

    Raises:
        JobError: It is not an ONNX model, or can't be loaded.
    """
    run_apart(__name__, "load" if load else "parse", str(path.absolute()))


def read_model(path: Path, *, load: bool) -> None:
    """Parses a model in this process.

    Raises:
        MissingPackageError: A package is not installed here.
        JobError: It is not an ONNX model, or can't be loaded.
    """
    try:
        import onnx
        from onnx.external_data_helper import _get_all_tensors, uses_external_data
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{error.name} is not installed") from error

    from zoo.runtime.onnxruntime import OnnxRuntimeSession

    if path.stat().st_size > _LARGEST:
        raise JobError(f"not an ONNX model: it has more than {_LARGEST:,} bytes")
    try:
        model = onnx.load_model(path, load_external_data=False)
        outside = any(map(uses_external_data, _get_all_tensors(model)))
        if not outside:
            onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise classes of their own
        raise JobError(f"not a valid ONNX model: {cause_of(error)}") from error
    if outside:
        raise JobError("its weights are in another file, which nobody may name")
    if load:
        del model
        try:
            with OnnxRuntimeSession(path, 1, threads=1):
                pass
        except ZooError:
            raise
        except Exception as error:  # of an input of another form
            raise JobError(f"not an engine of images: {cause_of(error)}") from error


def main(arguments: list[str]) -> int:
    """Parses the named model; returns the exit status."""
    how, path = arguments
    try:
        read_model(Path(path), load=how == "load")
    except ZooError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code if isinstance(error, MissingPackageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
