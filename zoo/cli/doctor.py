"""``zoo doctor``: checks this machine's setup and says how to fix problems.

Imports no native library. Each check is a function that yields findings.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from zoo.cli.command import add_arguments
from zoo.cli.support import add_store
from zoo.client.client import connect, default_cache
from zoo.client.host import Run, all_installed, describe_gpu, run_command
from zoo.inference.gpu.packages import GPU_PACKAGES
from zoo.schema.runtimes import title_of
from zoo.schema.targets import Toolchain
from zoo.util.errors import TrustError, ZooError
from zoo.util.names import counted
from zoo.util.version import __version__

State = Literal["ok", "note", "fail"]
_MIN_FREE_BYTES = 2 << 30
_MODELS_TO_READ = 3  # each costs a request
_CUDA_DRIVERS = {13: 580, 12: 535}
"""CUDA major version to its minimum driver version. Source: NVIDIA's CUDA release notes."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A line of ``zoo doctor``.

    Attributes:
        check: What was checked.
        state: ``ok``, ``note`` for something that may not matter, or ``fail`` for a problem.
        found: Result of the check.
        do: How to fix the problem; empty if there is none.
    """

    check: str
    state: State
    found: str
    do: str = ""


def python() -> Iterator[Finding]:
    """Reports the versions of Python and this package."""
    text = f"caft-zoo {__version__}, Python {platform.python_version()}, {platform.system()}"
    yield Finding(check="software", state="ok", found=f"{text} {platform.machine()}")


def gpu(run: Run = run_command) -> Iterator[Finding]:
    """Checks the GPU, its driver and the CUDA versions that the driver supports."""
    device = describe_gpu(run)
    if device is None:
        yield Finding(
            check="gpu",
            state="note",
            found="no NVIDIA GPU: nvidia-smi is not installed or lists none",
            do="engines for the CPU work; to use a GPU, install its driver",
        )
        return
    capability = f"sm{(device.compute_capability or '').replace('.', '')}"
    memory = f"{float(device.memory_mib or 'nan') / 1024:.0f} GiB"
    yield Finding(check="gpu", state="ok", found=f"{device.name}, {capability}, {memory}")
    yield driver(device.driver or "")


def driver(version: str) -> Finding:
    """Checks which CUDA versions a driver supports."""
    supported = [cuda for cuda, minimum in _CUDA_DRIVERS.items() if _major(version) >= minimum]
    if supported:
        found = f"{version}, supports CUDA {max(supported)}"
        return Finding(check="driver", state="ok", found=found)
    return Finding(
        check="driver",
        state="fail",
        found=f"{version} is too old for CUDA 12 and 13",
        do=f"install driver {_CUDA_DRIVERS[12]} or later",
    )


def runtimes(installed: Iterable[Toolchain], run: Run = run_command) -> Iterator[Finding]:
    """Checks the installed runtimes, and whether the driver is new enough for them."""
    toolchains = list(installed)
    device = describe_gpu(run)
    driver_version = device.driver if device else None
    for toolchain in toolchains:
        cuda = f" for CUDA {toolchain.cuda}" if toolchain.cuda else ""
        title = f"{title_of(toolchain.kind)} {toolchain.version}{cuda}"
        minimum = _CUDA_DRIVERS.get(toolchain.cuda or 0, 0)
        if driver_version is None or _major(driver_version) >= minimum:
            yield Finding(check="runtime", state="ok", found=title)
        else:
            do = f"install NVIDIA driver {minimum} or later; {driver_version} is too old"
            yield Finding(check="runtime", state="fail", found=title, do=do)
    if not toolchains:
        yield Finding(
            check="runtime",
            state="fail",
            found="no runtime is installed: engines can be downloaded but not run",
            do="pip install 'caft-zoo[onnxruntime]', or 'caft-zoo[rtx]' for a GPU",
        )


def decoding(installed: Callable[[str], str | None], has_gpu: bool) -> Iterator[Finding]:
    """Looks at the packages that decode and resize photos on the GPU.

    Args:
        installed: Returns the version of a package, None if it is not installed.
        has_gpu: Whether there is a GPU to do it.
    """
    if not has_gpu:
        yield Finding(check="decoding", state="ok", found="by Pillow: there is no NVIDIA GPU")
        return
    versions = {package: installed(package) for package in GPU_PACKAGES}
    missing = [package for package, version in versions.items() if version is None]
    if not missing:
        text = ", ".join(f"{package} {version}" for package, version in versions.items())
        yield Finding(check="decoding", state="ok", found=text)
    else:
        yield Finding(
            check="decoding",
            state="note",
            found=f"photos are decoded by Pillow: {', '.join(missing)} not installed",
            do="pip install 'caft-zoo[gpu-decode]' decodes JPEG files on the GPU: several times "
            "as many photos per second on a few CPU cores",
        )


def package_version(name: str) -> str | None:
    """Returns the version of an installed package, None if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def store(url: str) -> Iterator[Finding]:
    """Checks the repository, its signatures, and this machine's clock against it."""
    warnings: list[str] = []  # the repository can't be read, but a cached index can
    try:
        client = connect(url, say=warnings.append)
        index = client.index()
        models = [client.model(row.model) for row in index.models[:_MODELS_TO_READ]]
        created = [engine.created for model in models for engine in model.engines]
    except ZooError as error:
        check = "trust" if isinstance(error, TrustError) else "store"
        yield Finding(check=check, state="fail", found=error.message, do=error.hint or "")
        yield clock(None, datetime.now(timezone.utc))
        return
    kind = " (DRY RUN)" if index.kind.seeded else ""
    if warnings:
        yield Finding(
            check="store",
            state="fail",
            found=warnings[0],
            do="cached engines still work; to download others, check the network and the URL",
        )
    else:
        yield Finding(
            check="store", state="ok", found=f"{url}: {counted(len(index.models), 'model')}{kind}"
        )
    if (until := client.signed.expires()) is not None:
        yield Finding(
            check="trust", state="ok", found=f"signed, valid until {until:%Y-%m-%d %H:%M} UTC"
        )
    yield clock(max(created, default=""), datetime.now(timezone.utc))


def clock(newest: str | None, now: datetime) -> Finding:
    """Checks that the clock is not behind the newest published engine.

    Args:
        newest: Creation time of the newest engine, ISO 8601 in UTC; empty if there are no engines,
            None if the repository can't be read.
        now: This machine's time.
    """
    text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if newest is None:
        return Finding(
            check="clock",
            state="note",
            found=f"{text}; no repository to compare it with",
            do="make sure it is right; expiry of signatures is checked against it",
        )
    if newest <= text:
        return Finding(check="clock", state="ok", found=text)
    return Finding(
        check="clock",
        state="fail",
        found=f"{text}, but an engine was built at {newest}",
        do="set the clock; expiry of signatures is checked against it",
    )


def disk(cache: Path) -> Iterator[Finding]:
    """Checks that the cache folder is writable and has enough free space."""
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
            do="set ZOO_HOME to another folder",
        )
        return
    free = shutil.disk_usage(folder).free
    found = f"{cache}: {free / 2**30:.1f} GiB free"
    if free < _MIN_FREE_BYTES:
        do = "free some space, for example with zoo cache prune, or set ZOO_HOME to another disk"
        yield Finding(check="disk", state="fail", found=found, do=do)
    else:
        yield Finding(check="disk", state="ok", found=found)


def examine(url: str, cache: Path, run: Run = run_command) -> list[Finding]:
    """Runs all checks, in order."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        python,
        lambda: gpu(run),
        lambda: runtimes(all_installed().values(), run),
        lambda: decoding(package_version, describe_gpu(run) is not None),
        lambda: store(url),
        lambda: disk(cache),
    )
    return [finding for check in checks for finding in check()]


def doctor(options: argparse.Namespace) -> int:
    """Checks this machine's setup and says how to fix problems."""
    findings = examine(options.store, default_cache())
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:<5} {finding.check:<9} {finding.found}")
            if finding.do:
                print(f"{'':<16}-> {finding.do.strip()}")
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def add_commands(commands: Any) -> None:
    """Adds ``zoo doctor``."""
    parser = add_arguments(commands, "doctor", doctor)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    add_store(parser)
