"""``zoo-farm add``: what it writes, and what it leaves alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.goldens import assert_golden
from support.hub_manifests import pin

from builders.cli import main as farm
from builders.executors.base import Outcome
from builders.executors.local import LocalExecutor
from builders.export.run import run_export
from builders.jobs.messages import ExportJob, Job
from builders.jobs.progress import Report
from builders.jobs.workspace import Workspace
from zoo.cli.main import run_cli
from zoo.schema.manifest import HubWeights, load_manifest
from zoo.util.errors import JobError

TINY = "test_convnext.r160_in1k"


def add(folder: Path, *words: str) -> int:
    return run_cli(farm.farm_parser(), ["--manifests", str(folder), "add", *words])


def here(self: LocalExecutor, job: Job, folder: Path, report: Report) -> Outcome:
    """Exports in this process, which has imported torch."""
    assert isinstance(job, ExportJob)
    return Outcome(result=run_export(job, Workspace(job.store, folder), report), folder=folder)


def test_a_model_is_exported_once_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LocalExecutor, "run", here)
    folder = tmp_path / "new"
    assert add(folder, "test_convnext") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^test_convnext: .*test_convnext\.r160_in1k$", printed, re.MULTILINE)
    assert "worst cosine 1.0" in printed
    chosen = f"MODELS=test_convnext MANIFESTS={folder}"
    assert f"make lock {chosen} and make zoo {chosen}\n" in printed
    assert [path.name for path in folder.iterdir()] == ["test_convnext.toml"]
    manifest = load_manifest(folder / "test_convnext.toml")
    assert manifest.timm_name == TINY
    assert isinstance(manifest.weights, HubWeights)
    assert (manifest.weights.revision, manifest.weights.sha256) == ("unlocked", "unlocked")


def test_nothing_is_written_for_a_model_that_does_not_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: LocalExecutor, job: Job, folder: Path, report: Report) -> Outcome:
        raise JobError("a branch of it is dead", hint="end of its log: so it is")

    monkeypatch.setattr(LocalExecutor, "run", fails)
    assert add(tmp_path, TINY) == 6
    error = capsys.readouterr().err
    assert_golden("cli/add-does-not-export", error)
    assert not list(tmp_path.iterdir())
    assert add(tmp_path, TINY, "--no-check") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["test_convnext.toml"]


def test_a_manifest_is_replaced_only_if_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no timm states outlives that."""
    assert add(tmp_path, TINY, "--no-check") == 0
    path = tmp_path / "test_convnext.toml"
    pin(path, "ab" * 32, digest_from="hub")
    text = path.read_text().replace("Not described yet", "A first look")
    text = text.replace("precisions = ", "half_images = true\nprecisions = ")
    text = text.replace("max = 256", "max = 300")
    path.write_text(text + '[tolerance.fp16]\ncosine = 0.9\nreason = "so it is"\n')
    before, written = load_manifest(path), path.read_text()
    assert add(tmp_path, TINY, "--no-check", "--cut", "pooled") == 2
    error = capsys.readouterr().err
    assert "--overwrite" in error
    assert path.read_text() == written
    assert add(tmp_path, TINY, "--no-check", "--cut", "pooled", "--overwrite") == 0
    manifest = load_manifest(path)
    assert manifest.backbone.cut == "pooled"
    assert manifest.catalog.use_case == "A first look"
    for field in ("half_images", "tolerance", "batch", "precisions", "weights", "catalog"):
        assert getattr(manifest, field) == getattr(before, field)
    assert isinstance(manifest.weights, HubWeights)
    assert manifest.weights.sha256 == "ab" * 32
    assert add(tmp_path, "test_convnext2.r160_in1k", "--id", "test_convnext", "--overwrite",
               "--no-check") == 2  # fmt: skip
    assert TINY in capsys.readouterr().err
    assert add(tmp_path, TINY, "--id", "second", "--no-check") == 0
    assert load_manifest(tmp_path / "second.toml").timm_name == TINY


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("", 2), ("no", 2)])
def test_a_person_is_asked(
    answer: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add(tmp_path, TINY, "--no-check") == 0
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert add(tmp_path, TINY, "--no-check", "--cut", "flattened") == status
    cut = load_manifest(tmp_path / "test_convnext.toml").backbone.cut
    assert cut == ("flattened" if status == 0 else "pre_logits")


def test_a_manifest_that_cannot_be_read_is_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "test_convnext.toml").write_text("id = ")
    assert add(tmp_path, TINY, "--no-check") == 2
    assert (tmp_path / "test_convnext.toml").read_text() == "id = "


WRONG = [
    # arguments, golden
    (("convnext_tiney",), "architecture"),
    (("test_convnext.r160",), "tag"),
    (("resnet200",), "no-weights"),
    (("gcvit_xxtiny.in1k",), "no-repository"),
    ((TINY, "--cut", "cls_token"), "cut"),
    ((TINY, "--id", "Big"), "id"),
    ((TINY, "--input-size", "4096"), "size"),
    (("--list", "konvnext*"), "pattern"),
]


@pytest.mark.parametrize(("words", "golden"), WRONG, ids=lambda value: str(value)[:30])
def test_what_is_wrong_is_said(
    words: tuple[str, ...], golden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(tmp_path, *words, *([] if "--list" in words else ["--no-check"])) in (2, 3, 6)
    assert_golden(f"cli/add-{golden}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_without_timm_its_installation_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert add(tmp_path, TINY) == 13
    assert "pip install" in capsys.readouterr().err


def test_weights_are_listed_with_what_stands_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(tmp_path, TINY, "--no-check") == 0
    capsys.readouterr()
    assert add(tmp_path, "--list", "test_convnext*") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "test_convnext.r160_in1k", "test_convnext2.r160_in1k", "test_convnext3.r160_in1k"
    ]  # fmt: skip
    assert lines[1].split()[1:4] == ["160", "pre_logits", "64"]
    assert lines[1].endswith(" test_convnext")
    assert lines[2].endswith("yes (apache-2.0)")
