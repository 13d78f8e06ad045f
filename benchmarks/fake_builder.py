"""A fake builder for simulations of the farm: it only sleeps, and crashes when a job says so.

It replaces ``BUILDER_PYTHON``. Probed, it reports an ONNX Runtime; given a job, it sleeps for the
job's option ``seconds`` and writes a small engine. The first ``kills`` attempts of a job kill the
cluster's worker too; each attempt is logged in the folder ``notes``. It needs only the standard
library and starts in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

TOOLCHAIN = {
    "kind": "ort", "version": "1.32.0", "cuda": None, "os": "linux", "machine": "x86_64",
}  # fmt: skip

_NETWORK = bytes.fromhex(
    "08083a480a0f0a01691201662207466c617474656e1201675a1c0a016912170a1508011211"
    "0a031201620a0208030a0208010a02080162140a0166120f0a0d080112090a031201620a02080342040a001011"
)
"""An ONNX network that flattens images of one pixel: engines are parsed before they are stored."""

_DOCUMENTATION = b"\x32"  # tag of a ModelProto's text for people


def write_launcher(path: Path, python: str = sys.executable) -> Path:
    """Writes the executable for ``--builder-python``, which runs this module in a Python."""
    path.write_text(f'#!/bin/sh\nexec "{python}" -ISs "{__file__}" "$@"\n')
    path.chmod(0o755)
    return path


def attempts(notes: Path, name: str) -> list[str]:
    """Returns the log of a job's attempts: ``begun PID`` and ``done PID``, in order."""
    path = notes / name
    return path.read_text().splitlines() if path.exists() else []


def work(job_file: Path, output: Path) -> int:
    """Does one job."""
    job = json.loads(job_file.read_text())
    options = job["inputs"]["options"]
    name, notes = job["inputs"]["model"], Path(options["notes"])
    before = sum(line.startswith("begun") for line in attempts(notes, name))
    _note(notes, name, "begun")
    print(f"working on {name}", file=sys.stderr, flush=True)
    event = {"stage": "build", "done": 0, "total": 1, "note": "fake"}
    print(json.dumps(event), flush=True)
    worker = os.getppid()
    if before < options["kills"]:
        _wait(options["seconds"] / 2, worker)
        os.kill(worker, signal.SIGKILL)
        return 1
    _wait(options["seconds"], worker)
    made_by = f"{name} by {os.getpid()}"[:127].encode()
    engine = _NETWORK + _DOCUMENTATION + bytes([len(made_by)]) + made_by
    (output / "engine").write_bytes(engine)
    _note(notes, name, "done")
    result = {
        "kind": "build", "engine": "engine", "facts": {}, "precision_proven": False,
        "verification": None, "benchmark": [], "machine": {"python": platform.python_version()},
        "cost": {"seconds": 0},
    }  # fmt: skip
    partial = output / "result.json.part"
    partial.write_text(json.dumps(result))
    partial.replace(output / "result.json")
    return 0


def _wait(seconds: float, worker: int) -> None:
    """Sleeps; ends this process if its worker has died, like a real one."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if os.getppid() != worker:
            sys.exit(1)
        time.sleep(min(left, 0.1))


def _note(notes: Path, name: str, what: str) -> None:
    with (notes / name).open("a") as file:
        file.write(f"{what} {os.getppid()}\n")


def main(arguments: list[str]) -> int:
    """Acts as a Python interpreter that is given a probe, an import or a job."""
    if arguments[:2] == ["-m", "zoo.client.host"]:
        print(json.dumps({"ort": TOOLCHAIN}))
        return 0
    if arguments[:2] == ["-m", "builders.worker"]:
        return work(Path(arguments[2]), Path(arguments[3]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
