"""Both command lines: what is wrong is said in a sentence, with a status that is not 0."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.goldens import assert_golden
from support.paths import MANIFESTS, ROOT

from builders.cli.images import unlocked_bases
from zoo.schema.manifest import HubWeights, load_manifests


def run(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


FARM = [
    (["zoo", "--models", "resnet5"], 2, "'resnet50'"),
    (["zoo", "--gpu", "sm87"], 2, "'sm89'"),
    (["zoo", "--gpu", "sm90"], 9, "sm90"),
    (["zoo", "--gpu", "sm86", "--trt", "rtx1.6"], 2, "'rtx1.7'"),
    (["zoo", "--gpu", "sm86", "--trt", "newest"], 2, "'newest'"),
    (["zoo", "--precision", "fp61"], 2, "'fp16'"),
    (["zoo", "--gpu", "cpu", "--precision", "fp16"], 9, ""),
    (["zoo", "--gpu", "sm86", "--trt", "8.6", "--precision", "bf16"], 9, "rtx1.7"),
    (["zoo", "--gpu", "cpu", "--builder", "level=5"], 2, "'level'"),
    (["zoo", "--weights", "sedeed"], 2, "'seeded'"),
    (["zoo", "--store", "s4://bucket", "--models", "resnet50"], 10, ""),
    (["--manifests", "nowhere", "zoo"], 3, ""),
    (["plan", "--gpu", "cpu", "--trt", "9.9"], 2, "TRT=9.9"),
    (["plan", "--scheduler", "tls://farm:8786"], 2, "EXECUTOR=dask"),
    (["plan", "--gpu", "cpu", "--builder", "levle=3"], 2, "levle"),
    (["plan", "--executor", "dusk"], 2, "'dask'"),
    (["zou"], 2, "zoo-farm"),
    (["lock", "resnet5"], 2, "'resnet50'"),
    (["catalog", "--store", "nowhere"], 10, ""),
    (["worker", "nowhere.json", "out"], 14, "nowhere.json"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), FARM, ids=lambda v: str(v)[:40])
def test_the_farm_explains(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    done = run("builders.cli", "--manifests", str(MANIFESTS), *arguments, folder=tmp_path)
    assert done.returncode == status, done.stderr
    _check_explained(arguments, status, words, done.stderr)
    assert not (tmp_path / "_repository").exists()


def test_what_a_family_has_none_of_is_refused_before_an_export(tmp_path: Path) -> None:
    wish = ["--gpu", "sm75", "--models", "vit_base_patch16_224", "--precision", "fp32"]
    done = run(
        "builders.cli", "--manifests", str(MANIFESTS), "zoo", "--weights", "seeded", *wish,
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert re.search(r"FAILED vit_base_patch16_224: .* 1\.7 .*\bfp32\b.*\bvit\b.*\bsm75\b", said)
    assert "export" not in said


CLIENT = [
    (["list"], 10, ""),
    (["show", "resnet50"], 10, "make zoo"),
    (["list", "--store", "ftp://host"], 10, ""),
    (["pull"], 2, "zoo pull --help"),
    (["run", "resnet50", "nothing.jpg"], 12, ""),
    (["features", "nowhere", "--model", "m", "-o", "c"], 30, ""),
    (
        ["features", ".", "--model", "m", "-o", "c", "--augment", "-1"],
        2,
        "-1",
    ),
    (["features", ".", "--model", "m", "-o", "c"], 30, ".jpg"),
    (["train-head", "nowhere"], 31, "zoo features DATASET --model MODEL -o nowhere"),
    (["train-head", "."], 31, "card.json"),
    (["probe", "nowhere"], 31, ""),
    (["predict", "photo.jpg"], 2, "--head"),
    (["predict", "--head", "none.safetensors", "photo.jpg"], 32, "zoo train-head CACHE"),
    (["export-head", "--head", "none.safetensors", "-o", "."], 2, ""),
    (["cache"], 2, "zoo cache --help"),
    (["doctor", "--store", "ftp://host"], 1, ""),
]


@pytest.mark.parametrize(("arguments", "status", "words"), CLIENT, ids=lambda v: str(v)[:40])
def test_the_client_explains(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    done = run("zoo.cli", *arguments, folder=tmp_path)
    assert done.returncode == status, done.stderr
    _check_explained(arguments, status, words, done.stderr)


def _check_explained(arguments: list[str], status: int, words: str, explained: str) -> None:
    """Checks what a command wrote: its words, or its golden where it has none."""
    assert "Traceback" not in explained
    assert words in explained
    if not words and status != 1:  # the doctor describes this machine
        golden = re.sub(r"[^a-z0-9-]+", "-", " ".join(arguments)).strip("-")
        assert_golden(f"cli/{golden}", explained)


def test_what_is_unlocked_is_listed(tmp_path: Path) -> None:
    done = run("builders.cli", "--manifests", str(MANIFESTS), "unlocked", folder=tmp_path)
    assert done.returncode == 0
    hub = [
        name
        for name, manifest in load_manifests(MANIFESTS).items()
        if isinstance(manifest.weights, HubWeights) and not manifest.weights.pinned
    ]
    assert done.stdout.split() == hub + unlocked_bases()
    assert "make lock" in done.stderr
    assert re.search(r"^.*resnet50: .*\bhash\b", done.stderr, re.MULTILINE)
    assert "zoo-farm images --lock" in done.stderr


def test_a_job_that_is_none_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"kind": "bake"}')
    done = run("builders.worker", "job.json", "out", folder=tmp_path)
    assert done.returncode == 14
    assert '"kind": "failure"' in (tmp_path / "out" / "result.json").read_text()


def test_make_refuses_a_variable_that_does_not_exist() -> None:
    done = subprocess.run(["make", "help", "MODEL=x"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "MODEL" in done.stderr


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    for word in ("zoo", "test", "lint", "clean", "catalog", "GPU", "WEIGHTS", "PRECISION"):
        assert word in done.stdout
