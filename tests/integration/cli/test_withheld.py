"""Models whose licence forbids publishing engines: no failure of a run, and no work either."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console
from support.goldens import assert_golden
from support.paths import MANIFESTS

from builders.cli import build
from builders.cli import main as farm
from builders.jobs.progress import Display
from builders.run.summary import Summary
from builders.weights import locking
from zoo.cli.main import run_cli
from zoo.schema.manifest import Manifest
from zoo.util.errors import LicenceError, WeightsError

FORBIDDEN = "dinov3_vit_small"


def test_a_run_that_built_nothing_else_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Manifest] = []
    monkeypatch.setattr(locking, "resolve", asked.append)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    folder = tmp_path / "manifests"
    folder.mkdir()
    shutil.copy(MANIFESTS / f"{FORBIDDEN}.toml", folder)
    status = run_cli(
        farm.farm_parser(),
        ["--manifests", str(folder), "zoo", "--gpu", "cpu", "--precision", "fp32",
         "--store", str(tmp_path / "store"), "--site", str(tmp_path / "site")],
    )  # fmt: skip
    printed = capsys.readouterr()
    assert status == 17, printed
    assert "dinov3-license" in printed.err
    assert asked == []
    assert not (folder / "manifests.lock").exists()


@pytest.mark.parametrize(("failed", "status"), [(False, 0), (True, 1)])
def test_a_run_that_built_something_has_not_failed(
    failed: bool, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = LicenceError(f"{FORBIDDEN}: its weights are under 'dinov3-license'", hint="the list")
    summary = Summary(current=["resnet50 cpu-ort1.32-fp32"], withheld={FORBIDDEN: refused})
    if failed:
        summary.failed["vgg16_bn"] = WeightsError("vgg16_bn: not on the hub")
    assert build._print_summary(summary, "store", Display(Console(width=200))) == status
    if not failed:
        assert_golden("cli/withheld", capsys.readouterr().out)
