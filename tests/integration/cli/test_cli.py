"""Both command lines: what is wrong is said in a sentence, with a status that is not 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
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
    (["zoo", "--models", "resnet5"], 2, "Perhaps you meant 'resnet50'"),
    (["zoo", "--gpu", "sm87"], 2, "Perhaps you meant 'sm89'"),
    (["zoo", "--gpu", "sm90"], 9, "lines that serve sm90"),
    (["zoo", "--gpu", "sm86", "--trt", "rtx1.6"], 2, "Perhaps you meant 'rtx1.7'"),
    (["zoo", "--gpu", "sm86", "--trt", "newest"], 2, "unknown runtime line 'newest'"),
    (["zoo", "--precision", "fp61"], 2, "Perhaps you meant 'fp16'"),
    (["zoo", "--gpu", "cpu", "--precision", "fp16"], 9, "cast fp16 weights back"),
    (
        ["zoo", "--gpu", "sm86", "--trt", "8.6", "--precision", "bf16"],
        9,
        "supports bf16 with rtx1.7",
    ),
    (["zoo", "--gpu", "cpu", "--builder", "level=5"], 2, "has no builder option 'level'"),
    (["zoo", "--weights", "sedeed"], 2, "Perhaps you meant 'seeded'"),
    (["zoo", "--store", "s4://bucket", "--models", "resnet50"], 10, "no store for 's4://'"),
    (["--manifests", "nowhere", "zoo"], 3, "no manifests here"),
    (["plan", "--gpu", "cpu", "--trt", "9.9"], 2, "TRT=9.9 is no runtime for GPU=cpu"),
    (["plan", "--scheduler", "tls://farm:8786"], 2, "EXECUTOR=dask (--executor) takes them"),
    (["plan", "--gpu", "cpu", "--builder", "levle=3"], 2, "levle"),
    (["plan", "--executor", "dusk"], 2, "Perhaps you meant 'dask'"),
    (["zou"], 2, "zoo-farm"),
    (["lock", "resnet5"], 2, "Perhaps you meant 'resnet50'"),
    (["catalog", "--store", "nowhere"], 10, "nothing has been published"),
    (["worker", "nowhere.json", "out"], 14, "can't be read"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), FARM, ids=lambda v: str(v)[:40])
def test_the_farm_explains(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    done = run("builders.cli", "--manifests", str(MANIFESTS), *arguments, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "_repository").exists()


def test_what_a_family_has_none_of_is_refused_before_an_export(tmp_path: Path) -> None:
    wish = ["--gpu", "sm75", "--models", "vit_base_patch16_224", "--precision", "fp32"]
    done = run(
        "builders.cli", "--manifests", str(MANIFESTS), "zoo", "--weights", "seeded", *wish,
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "FAILED vit_base_patch16_224: TensorRT-RTX 1.7 has no fp32 of vit on sm75" in said
    assert "export" not in said


CLIENT = [
    (["list"], 10, "no repository"),
    (["show", "resnet50"], 10, "make zoo"),
    (["list", "--store", "ftp://host"], 10, "no store for 'ftp://'"),
    (["pull"], 2, "zoo pull --help"),
    (["run", "resnet50", "nothing.jpg"], 12, "no such file"),
    (["features", "nowhere", "--model", "m", "-o", "c"], 30, "nowhere: no such folder or file"),
    (
        ["features", ".", "--model", "m", "-o", "c", "--augment", "-1"],
        2,
        "-1 is not a whole number",
    ),
    (["features", ".", "--model", "m", "-o", "c"], 10, "no repository"),
    (["train-head", "nowhere"], 31, "zoo features DATASET --model MODEL -o nowhere"),
    (["train-head", "."], 31, "has no card.json"),
    (["probe", "nowhere"], 31, "no such folder"),
    (["predict", "photo.jpg"], 2, "--head"),
    (["predict", "--head", "none.safetensors", "photo.jpg"], 32, "zoo train-head CACHE"),
    (["export-head", "--head", "none.safetensors", "-o", "."], 2, ". is a folder"),
    (["cache"], 2, "zoo cache --help"),
    (["doctor", "--store", "ftp://host"], 1, ""),
]


@pytest.mark.parametrize(("arguments", "status", "words"), CLIENT, ids=lambda v: str(v)[:40])
def test_the_client_explains(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    done = run("zoo.cli", *arguments, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_unlocked_is_listed(tmp_path: Path) -> None:
    done = run("builders.cli", "--manifests", str(MANIFESTS), "unlocked", folder=tmp_path)
    assert done.returncode == 0
    hub = [
        name
        for name, manifest in load_manifests(MANIFESTS).items()
        if isinstance(manifest.weights, HubWeights) and not manifest.weights.locked
    ]
    assert done.stdout.split() == hub + unlocked_bases()
    assert "zoo-farm lock" in done.stderr
    assert "zoo-farm images --lock" in done.stderr


def test_a_job_that_is_none_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"kind": "bake"}')
    done = run("builders.worker", "job.json", "out", folder=tmp_path)
    assert done.returncode == 14
    assert '"kind": "failure"' in (tmp_path / "out" / "result.json").read_text()


def test_make_refuses_a_variable_that_does_not_exist() -> None:
    done = subprocess.run(["make", "help", "MODEL=x"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "no variable MODEL; there are" in done.stderr


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    for word in ("zoo", "test", "lint", "clean", "catalog", "GPU", "WEIGHTS", "PRECISION"):
        assert word in done.stdout
