"""A stand-in worker that speaks the real protocol and then misbehaves, harmlessly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST_FILE = "host-file"
SECRET = "a line of the farm's machine"

Result = dict[str, Any]


def as_link(name: str) -> Callable[[Path, Path, Result], None]:
    """Puts a link to a file of the farm's machine in a file's place."""

    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).unlink(missing_ok=True)
        (output / name).symlink_to(host)

    return misbehave


def _hard_link(output: Path, host: Path, result: Result) -> None:
    (output / "engine").unlink()
    (output / "engine").hardlink_to(host)


def _fifo(name: str) -> Callable[[Path, Path, Result], None]:
    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).unlink(missing_ok=True)
        os.mkfifo(output / name)

    return misbehave


def _folder(output: Path, host: Path, result: Result) -> None:
    (output / "engine").unlink()
    (output / "engine").mkdir()


def _sparse(name: str, size: int) -> Callable[[Path, Path, Result], None]:
    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).touch()
        os.truncate(output / name, size)

    return misbehave


def _returns(**fields: Any) -> Callable[[Path, Path, Result], None]:
    def misbehave(output: Path, host: Path, result: Result) -> None:
        text = json.dumps(fields).replace("HOST", str(host))
        result.update(json.loads(text))

    return misbehave


MISBEHAVIOURS: dict[str, Callable[[Path, Path, Result], None]] = {
    "absolute path": _returns(files={"inspector": "HOST"}),
    "unknown side file": _returns(files={"notes": "inspector.json"}),
    "parent": _returns(engine="../host-file"),
    "dots": _returns(engine=".."),
    "the farm's name": _returns(engine="job.json"),
    "one file twice": _returns(timing_cache="engine"),
    "absolute timing cache": _returns(timing_cache="HOST", machine={"gpu": {"name": "a GPU"}}),
    "no engine": _returns(engine=None),
    "missing file": _returns(engine="another"),
    "huge number": _returns(facts={"n": 10**100}),
    "engine is a link": as_link("engine"),
    "inspector is a link": as_link("inspector.json"),
    "timing cache is a link": as_link("cache"),
    "log is a link": as_link("log.txt"),
    "result is a link": as_link("result.json"),
    "engine is a hard link": _hard_link,
    "engine is a FIFO": _fifo("engine"),
    "log is a FIFO": _fifo("log.txt"),
    "result is a FIFO": _fifo("result.json"),
    "engine is a folder": _folder,
    "result is too long": _sparse("result.json", 2**24),
    "engine is too large": _sparse("engine", 2**35 + 1),
}


def work(case: str, output: Path, host: Path) -> None:
    """Does the job, and then what the case says; ``job.json`` becomes a link in every case."""
    for name in ("engine", "inspector.json", "cache"):
        (output / name).write_text(f"made here: {name}")
    result: Result = {
        "kind": "build", "engine": "engine", "files": {"inspector": "inspector.json"},
        "timing_cache": "cache", "facts": {}, "precision_proven": False, "verification": None,
        "benchmark": [], "machine": {"gpu": {"name": "a GPU"}}, "cost": {},
    }  # fmt: skip
    as_link("job.json")(output, host, result)
    text = None
    if case != "nothing":
        MISBEHAVIOURS[case](output, host, result)
    if not os.path.lexists(output / "result.json"):
        text = json.dumps(result)
        (output / "result.json").write_text(text)


if __name__ == "__main__":  # CASE HOST [docker's or Python's words] job.json output
    work(sys.argv[1], Path(sys.argv[-1]), Path(sys.argv[2]))
