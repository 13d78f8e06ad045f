"""Pytest hooks that fail a unit test which opens a socket, starts a program or imports torch.

A unit test needs no server, browser, export or network. ``tests/unit/conftest.py`` imports these
hooks, which pytest then calls for the tests below that folder alone.

An audit hook sees what a test does through any library. What it does not see: a library that
starts a process or opens a socket without Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from typing import Any

import pytest

HEAVY_MODULES = frozenset({"torch", "torchvision", "timm", "distributed", "playwright"})
"""They take seconds to import, or need what a unit test does not have."""

QUICK_PROGRAMS = frozenset({"git", "ldconfig", "nvidia-smi"})
"""The product asks them for a version or a device, and goes on where they are missing."""

_PROCESS_EVENTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
_IPV6_PROBE = ("::1", 0)  # urllib3 binds this, once, when it is imported

_active = False
_violations: list[str] = []


def violation(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Returns what an audit event does that no unit test may do, or None.

    Args:
        event: Name of the audit event.
        arguments: Of the event, as the interpreter documents them.
    """
    if event == "import":
        module = str(arguments[0]).partition(".")[0]
        return f"imports {module}" if module in HEAVY_MODULES else None
    if event == "subprocess.Popen":
        return _started(arguments[0], arguments[1])
    if event in _PROCESS_EVENTS:
        return f"starts a process ({event})"
    if event in ("socket.connect", "socket.getaddrinfo"):
        return f"opens a connection ({event} {arguments[1] if event[7] == 'c' else arguments[:2]})"
    if event == "socket.bind" and tuple(arguments[1][:2]) != _IPV6_PROBE:
        return f"opens a server (socket.bind {arguments[1]})"
    return None


def _started(executable: Any, arguments: Sequence[Any] | str | bytes) -> str | None:
    words = [arguments] if isinstance(arguments, str | bytes) else list(arguments)
    command = [os.fsdecode(word) for word in words]
    program = os.path.basename(os.fsdecode(executable or command[0]))
    if program in QUICK_PROGRAMS or command[:2] == [sys.executable, "-c"]:
        return None
    return f"starts a program ({' '.join(command)[:100]})"


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active:
        return
    what = violation(event, arguments)
    if what is not None:
        # Kept, too: the code under test, or a thread of its own, may swallow the exception.
        _violations.append(what)
        raise RuntimeError(f"this unit test {what}: that is for tests/integration")


sys.addaudithook(_audit)


def _watched() -> Generator[None, Any, Any]:
    global _active
    _active, before = True, _active
    try:
        return (yield)
    finally:
        _active = before


# pytest calls these three, unlike pytest_runtest_protocol, for the tests below a conftest.py alone.


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    """Watches the fixtures of a test."""
    _violations.clear()
    return (yield from _watched())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Watches a test."""
    return (yield from _watched())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """Watches how the fixtures of a test end."""
    return (yield from _watched())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails the test that did what no unit test may."""
    report = yield
    _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Watches a module being imported."""
    _violations.clear()
    report: pytest.CollectReport = yield from _watched()
    _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _violations:
        report.outcome = "failed"
        report.longrepr = f"this unit test {', '.join(_violations)}: that is for tests/integration"
        _violations.clear()
