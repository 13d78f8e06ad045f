"""``zoo doctor``: what this machine has, and what to do about what it lacks.

Nothing native is imported. Each check is a function of what it is given and returns findings.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from zoo.cli.support import add_arguments, add_store
from zoo.client.client import connect, default_cache
from zoo.client.host import Run, all_installed, describe_gpu, run_command
from zoo.schema.runtimes import title_of
from zoo.schema.targets import Toolchain
from zoo.util.errors import TrustError, ZooError
from zoo.util.version import __version__

State = Literal["ok", "note", "fail"]
_LEAST_DISK = 2 << 30
_MODELS_LOOKED_AT = 3  # each is a request
_CUDA_DRIVERS = {13: 580, 12: 535}
"""CUDA major version to the oldest driver for it. Source: NVIDIA's CUDA release notes."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of ``zoo doctor``.

    Attributes:
        check: What was looked at.
        state: ``ok``; ``note`` for what is lacking and may not matter; ``fail`` for what does.
        found: What is there.
        do: What to do, empty when there is nothing.
    """

    check: str
    state: State
    found: str
    do: str = ""


def python() -> Iterator[Finding]:
    """Looks at Python and this package."""
    text = f"caft-zoo {__version__}, Python {platform.python_version()}, {platform.system()}"
    yield Finding(check="software", state="ok", found=f"{text} {platform.machine()}")


def gpu(run: Run = run_command) -> Iterator[Finding]:
    """Looks at GPU, driver and the CUDA that the driver serves."""
    found = describe_gpu(run)
    if found is None:
        yield Finding(
            check="gpu",
            state="note",
            found="no NVIDIA GPU: nvidia-smi is not there or lists none",
            do="engines for the CPU run here; for a GPU, install its driver",
        )
        return
    capability = f"sm{(found.compute_capability or '').replace('.', '')}"
    memory = f"{float(found.memory_mib or 'nan') / 1024:.0f} GiB"
    yield Finding(check="gpu", state="ok", found=f"{found.name}, {capability}, {memory}")
    yield driver(found.driver or "")


def driver(version: str) -> Finding:
    """Says which CUDA a driver serves."""
    served = [cuda for cuda, least in _CUDA_DRIVERS.items() if _major(version) >= least]
    if served:
        return Finding(check="driver", state="ok", found=f"{version}, for CUDA {max(served)}")
    return Finding(
        check="driver",
        state="fail",
        found=f"{version} is too old for CUDA 12 and 13",
        do=f"install driver {_CUDA_DRIVERS[12]} or later",
    )


def runtimes(installed: Iterable[Toolchain], run: Run = run_command) -> Iterator[Finding]:
    """Looks at the installed runtimes, and whether the driver is new enough for them."""
    found = list(installed)
    card = describe_gpu(run)
    here = card.driver if card else None
    for toolchain in found:
        cuda = f" for CUDA {toolchain.cuda}" if toolchain.cuda else ""
        text = f"{title_of(toolchain.kind)} {toolchain.version}{cuda}"
        least = _CUDA_DRIVERS.get(toolchain.cuda or 0, 0)
        if here is None or _major(here) >= least:
            yield Finding(check="runtime", state="ok", found=text)
        else:
            do = f"install NVIDIA driver {least} or later: {here} is too old for it"
            yield Finding(check="runtime", state="fail", found=text, do=do)
    if not found:
        yield Finding(
            check="runtime",
            state="fail",
            found="no runtime is installed: engines can be fetched, and none can be run",
            do="pip install 'caft-zoo[onnxruntime]', or for a GPU 'caft-zoo[rtx]'",
        )


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def store(url: str) -> Iterator[Finding]:
    """Looks at the repository, its signatures' state, and this machine's clock against it."""
    said: list[str] = []  # of a server that does not answer, where an older index is at hand
    try:
        client = connect(url, say=said.append)
        index = client.index()
        looked_at = [client.model(row.model) for row in index.models[:_MODELS_LOOKED_AT]]
        created = [engine.created for model in looked_at for engine in model.engines]
    except ZooError as error:
        check = "trust" if isinstance(error, TrustError) else "store"
        yield Finding(check=check, state="fail", found=error.message, do=error.hint or "")
        yield clock(None, datetime.now(timezone.utc))
        return
    kind = " (DRY RUN)" if index.kind.seeded else ""
    if said:
        yield Finding(
            check="store",
            state="fail",
            found=said[0],
            do="what is in the cache can be loaded all the same; for more, the repository must "
            "answer: check the network and the URL",
        )
    else:
        yield Finding(check="store", state="ok", found=f"{url}: {len(index.models)} models{kind}")
    if (until := client.signed.expires()) is not None:
        yield Finding(
            check="trust", state="ok", found=f"signed, good until {until:%Y-%m-%d %H:%M} UTC"
        )
    yield clock(max(created, default=""), datetime.now(timezone.utc))


def clock(newest: str | None, now: datetime) -> Finding:
    """Says whether the clock is behind what has been published.

    Args:
        newest: When the newest engine that was looked at was made, ISO 8601 in UTC; empty where
            there is none, None where the repository could not be read.
        now: By this machine.
    """
    text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if newest is None:
        return Finding(
            check="clock",
            state="note",
            found=f"{text} by this machine, with no repository to compare it with",
            do="see that it is right: signatures expire by it",
        )
    if newest <= text:
        return Finding(check="clock", state="ok", found=text)
    return Finding(
        check="clock",
        state="fail",
        found=f"{text} by this machine, and an engine was made at {newest}",
        do="set the clock; signatures expire by it",
    )


def disk(cache: Path) -> Iterator[Finding]:
    """Looks at the cache's folder: whether it can be written, and what is free."""
    folder = cache
    while not folder.exists():
        folder = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / ".doctor"
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield Finding(
            check="disk",
            state="fail",
            found=f"{cache} can't be written: {error.strerror}",
            do="name another folder with ZOO_HOME",
        )
        return
    free = shutil.disk_usage(folder).free
    found = f"{cache}: {free / 2**30:.1f} GiB free"
    if free < _LEAST_DISK:
        yield Finding(
            check="disk", state="fail", found=found, do="free some: zoo cache prune, or ZOO_HOME"
        )
    else:
        yield Finding(check="disk", state="ok", found=found)


def examine(url: str, cache: Path, run: Run = run_command) -> list[Finding]:
    """Runs all checks, in order."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        python,
        lambda: gpu(run),
        lambda: runtimes(all_installed().values(), run),
        lambda: store(url),
        lambda: disk(cache),
    )
    return [finding for check in checks for finding in check()]


def doctor(options: argparse.Namespace) -> int:
    """Looks at this machine and says what to do about what it lacks."""
    findings = examine(options.store, default_cache())
    if options.json:
        print(json.dumps([asdict(one) for one in findings], indent=1))
    else:
        for one in findings:
            print(f"{one.state:<5} {one.check:<9} {one.found}")
            if one.do:
                print(f"{'':<16}-> {one.do.strip()}")
    return 1 if any(one.state == "fail" for one in findings) else 0


def add_commands(commands: Any) -> None:
    """Adds ``zoo doctor``."""
    parser = add_arguments(commands, "doctor", doctor)
    parser.add_argument("--json", action="store_true", help="a JSON list of findings")
    add_store(parser)
