"""Engines published unrun: a machine that can run them promotes or withdraws them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.goldens import assert_golden
from support.make_farm import Counts, Farm, counts
from support.models import SMALL as MODEL
from support.paths import MANIFESTS, ROOT

from builders.cli import main
from builders.executors import LocalExecutor
from zoo.cli.main import run_cli
from zoo.schema.index import EngineEntry
from zoo.schema.records import FailureReason, FailureRecord

CPU, GPU = "cpu-ort1.32-fp32", "sm86-rtx1.7-fp32"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A dry run on a machine that could not run what it built: a CPU and a GPU engine."""
    folder = tmp_path_factory.mktemp("pending")
    (folder / "manifests").mkdir()
    shutil.copy(MANIFESTS / f"{MODEL}.toml", folder / "manifests")
    farm = Farm(folder=folder, manifests=folder / "manifests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalExecutor, "runs_on", lambda *_: None)
        patch.setenv("ZOO_HOME", farm.home["ZOO_HOME"])
        status = run_cli(
            main.farm_parser(),
            ["--manifests", str(farm.manifests), "zoo", "--weights", "seeded", "--gpu", "cpu,sm86",
             "--precision", "fp32", "--store", str(farm.store), "--site", str(folder / "site")],
        )  # fmt: skip
    assert status == 0
    assert {label: entry.status for label, entry in entries(farm).items()} == {
        CPU: "pending",
        GPU: "pending",
    }
    return farm


@pytest.fixture
def farm(published: Farm, tmp_path: Path) -> Farm:
    """The same repository, for a test to change."""
    return published.copy(tmp_path)


def entries(farm: Farm) -> dict[str, EngineEntry]:
    index = farm.repository.model_index(MODEL)
    assert index is not None
    return {label: entry for entry in index.engines for label in entry.targets}


def verify(farm: Farm, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "builders.cli", "--manifests", str(farm.manifests), "verify",
         "--store", str(farm.store), "--site", str(farm.folder / "site"), *options],
        capture_output=True, text=True, cwd=farm.folder, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **farm.home},
    )  # fmt: skip


@pytest.mark.full
def test_what_keeps_its_tolerance_is_promoted(farm: Farm) -> None:
    before = entries(farm)
    done = verify(farm, "--pending")
    assert done.returncode == 0, done.stdout + done.stderr
    elsewhere = [line for line in done.stdout.splitlines() if "sm86" in line]
    assert_golden("run/needs-another-machine", "\n".join(elsewhere))

    after = entries(farm)
    assert after[GPU] == before[GPU]
    promoted = after[CPU]
    assert promoted.status == "verified"
    assert promoted.verification is not None
    assert all(row.worst_cosine > 0.999 for row in promoted.verification.batches)
    assert promoted.benchmark is not None
    assert promoted.engine == before[CPU].engine
    index = farm.repository.index()
    assert index is not None
    assert index.models[0].targets == {CPU: "verified", GPU: "pending"}
    (shown,) = json.loads((farm.folder / "site" / "index.json").read_text())["models"]
    assert {e["targets"][0]: e["status"] for e in shown["engines"]} == index.models[0].targets
    assert not (farm.folder / "_failures").exists()

    # The farm itself would have found the same, and has nothing left to do.
    again = farm.make("WEIGHTS=seeded", "GPU=cpu", "PRECISION=fp32")
    assert counts(again) == Counts(current=1)

    # What is left needs a GPU, and that is an error: nothing can be done here.
    left = verify(farm, "--pending")
    assert left.returncode == 11
    assert "sm86" in left.stderr
    assert_golden("run/no-pending-engine-runs-here", left.stderr.splitlines()[0])

    # Without --pending, what has a verdict gets another.
    count = len(farm.repository.attestations(promoted.engine.sha256))
    assert verify(farm).returncode == 0
    assert len(farm.repository.attestations(promoted.engine.sha256)) == count + 2


def test_what_misses_its_tolerance_is_withdrawn(farm: Farm) -> None:
    strict = "[tolerance.fp32]\nrelative_error = 0.00000001\n\n[catalog]"
    farm.edit(MODEL, "[catalog]", strict)
    done = verify(farm, "--pending")
    assert done.returncode == 1
    assert f"{MODEL} {CPU}: " in done.stdout
    withdrawn = entries(farm)[CPU]
    assert withdrawn.status == "withdrawn"
    (noted,) = farm.repository.store.list(f"failures/{MODEL}/{withdrawn.record}/")
    missed = farm.repository.read(noted.key, FailureRecord)
    assert missed is not None
    assert missed.reason is FailureReason.TOLERANCE
    assert missed.inputs.key == withdrawn.record
    assert withdrawn.reason is not None
    assert "relative error" in withdrawn.reason
    assert withdrawn.reason in done.stdout
    assert "withdrawn" in (farm.folder / "site" / "index.html").read_text()
    assert (farm.folder / "_failures" / f"{MODEL}-{CPU}" / "log.txt").exists()


def test_a_precision_that_was_asked_for_by_name_is_proven_too(farm: Farm) -> None:
    farm.edit(MODEL, 'precisions = ["fp32", ', "precisions = [")
    done = verify(farm, "--pending")
    assert done.returncode == 0, done.stdout + done.stderr
    assert entries(farm)[CPU].status == "verified"


@pytest.mark.parametrize("limit", [("--timeout", "0.001"), ("--memory", "0.03")])
def test_what_could_not_be_run_to_its_end_stays_pending(limit: tuple[str, str], farm: Farm) -> None:
    done = verify(farm, "--pending", *limit)
    assert done.returncode == 1
    assert f"{MODEL} {CPU}: " in done.stdout
    assert f"{limit[0][2:].upper()}= ({limit[0]})" in done.stdout
    assert entries(farm)[CPU].status == "pending"


def test_a_damaged_engine_is_not_loaded(farm: Farm) -> None:
    path = farm.repository.blobs.path(entries(farm)[CPU].engine)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = verify(farm, "--pending")
    assert done.returncode == 1
    (failed,) = [line for line in done.stdout.splitlines() if f" {CPU}: " in line]
    assert_golden("run/verify-damaged-engine", failed)
    assert entries(farm)[CPU].status == "pending"


def test_a_model_without_a_manifest_is_named(farm: Farm) -> None:
    (farm.manifests / f"{MODEL}.toml").unlink()
    shutil.copy(MANIFESTS / "resnet50.toml", farm.manifests)
    done = verify(farm, "--pending")
    assert done.returncode == 1
    (failed,) = [line for line in done.stdout.splitlines() if f"{MODEL}: " in line]
    assert_golden("run/verify-without-manifest", failed)
    # Nothing of that model is published.
    other = verify(farm, "--pending", "--models", "resnet50")
    assert other.returncode == 0
    assert_golden("run/nothing-to-verify", other.stdout)
