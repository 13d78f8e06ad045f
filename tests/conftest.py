"""Fixtures, and the rule on skipping: in CI only what is listed here may be skipped."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from support import goldens
from support.commands import ZooFarm
from support.fake_hub import FakeHub
from support.make_farm import Counts, Farm, counts
from support.models import LITE, SMALL
from support.paths import MANIFESTS
from support.s3_server import S3Server
from support.signed_repository import Signed
from support.skips import may_skip_in_ci

from zoo.schema.manifest import Manifest, load_manifests

os.environ["ZOO_FARM_KEEP_NOISE"] = "1"  # tests run beside others: no machine is quiet then
os.environ["ZOO_FARM_REFERENCE"] = "0"  # seconds per engine; its own tests switch it on


def pytest_configure(config: pytest.Config) -> None:
    """Keeps each process of a parallel run on a processor of its own, and lets it be interrupted.

    Thread pools of several processes that share two processors spin while they wait for each other:
    the same tests then take 1.6 times the processor time.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Of a job in the background; commands that tests start and interrupt would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = getattr(config, "workerinput", None)
    if worker is not None and hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        number = int(worker["workerid"].removeprefix("gw"))
        os.sched_setaffinity(0, {processors[number % len(processors)]})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip that CI has no right to into a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        assert call.excinfo is not None
        reason = str(call.excinfo.value)
        if not may_skip_in_ci(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, which is to have what this needs: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says outside CI which tests were skipped that CI would fail."""
    reasons = [
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    ]
    refused = Counter(reason for reason in reasons if not may_skip_in_ci(reason))
    if refused:
        terminalreporter.section("skipped here, a failure in CI")
        for reason, tests in refused.items():
            terminalreporter.line(f"{tests} x {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that all processes end at about the same time."""
    longest = (
        "test_farm", "test_cluster", "test_changes", "test_card", "test_kill",
        "test_publisher_processes", "test_workflow_night", "test_corrections", "test_compare",
        "test_pytorch_reference",
        "test_accuracy", "test_closed_sets", "test_unsimplified", "test_tutorial", "test_reverify",
        "test_stores_s3", "test_pipeline",
    )  # fmt: skip
    items.sort(key=lambda item: not item.path.name.startswith(longest))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fails a test whose group pytest-xdist spreads over several processes."""
    grouped = item.config.getoption("loadgroup", False) and item.get_closest_marker("xdist_group")
    if grouped and "@" not in item.nodeid:
        pytest.fail(f"pytest-xdist does not keep {item.nodeid} in its group", pytrace=False)


@pytest.fixture
def zoo_farm(monkeypatch: pytest.MonkeyPatch) -> ZooFarm:
    """Runs zoo-farm in this process."""
    from builders.cli import main

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["zoo-farm", *arguments])
        return main.main()

    return run


@pytest.fixture(autouse=True)
def zoo_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trust and cache of a user of its own: a test never sees those of who runs it."""
    home = tmp_path / "zoo-home"
    monkeypatch.setenv("ZOO_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def hidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the test's own folder in goldens."""
    monkeypatch.setattr(goldens, "tmp_path", tmp_path)


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


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A repository with one model on two targets, from real weights. Not to be changed."""
    folder = tmp_path_factory.mktemp("farm")
    shutil.copytree(MANIFESTS, folder / "manifests")
    made = Farm(folder=folder, manifests=folder / "manifests")
    made.edit(LITE, ', "int8"]', "]")  # its own tests make it
    done = made.make(f"MODELS={LITE}", "GPU=cpu,sm86")
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(done) == Counts(published=3)
    return made


@pytest.fixture
def copy(farm: Farm, tmp_path: Path) -> Farm:
    """The same repository, for a test to change."""
    return farm.copy(tmp_path)


@pytest.fixture(scope="session")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A seeded repository; one of its two models can't be built. Not to be changed."""
    folder = tmp_path_factory.mktemp("dry")
    (folder / "manifests").mkdir()
    for name in (SMALL, LITE, "resnet50"):
        shutil.copy(MANIFESTS / f"{name}.toml", folder / "manifests")
    made = Farm(folder=folder, manifests=folder / "manifests")
    made.edit(SMALL, ', "int8"]', "]")
    made.edit(LITE, 'tag = "in1k"', 'tag = "nothing_in1k"')
    made.edit("resnet50", 'family = "resnet"', 'family = "other"')
    done = made.make("WEIGHTS=seeded", f"MODELS={SMALL},{LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert "'nothing_in1k'" in done.stdout
    assert counts(done) == Counts(published=1, failed=1)
    return made


@pytest.fixture
def dry_run_copy(dry_run: Farm, tmp_path: Path) -> Farm:
    """The same repository, for a test to change."""
    return dry_run.copy(tmp_path)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    """A signed repository with no engine in it."""
    return Signed(tmp_path)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on loopback, shared by all tests: each takes a prefix of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty prefix on that server, with its maintainer's credentials."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_url()
