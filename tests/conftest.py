"""Fixtures, and the rule on skipping: in CI only what is listed here may be skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub

from zoo.manifest import Manifest, load_manifests

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "manifests"

MAY_SKIP_IN_CI: tuple[str, ...] = ()
"""Beginnings of the reasons that CI may give: what it cannot have. Nothing so far."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip that CI has no right to into a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        assert call.excinfo is not None
        reason = str(call.excinfo.value)
        if not any(reason.startswith(allowed) for allowed in MAY_SKIP_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, which is to have what this needs: {reason}"
    return report


@pytest.fixture(scope="session")
def manifests() -> dict[str, Manifest]:
    return load_manifests(MANIFESTS)


@pytest.fixture
def manifest_dir(tmp_path: Path) -> Path:
    """A copy of the manifests that a test may change."""
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on loopback, with a cache of its own."""
    with FakeHub() as server:
        for name, value in server.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield server
