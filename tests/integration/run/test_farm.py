"""The real pipeline: real ImageNet weights of one model, seeded weights of another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.make_farm import Counts, Farm, counts
from support.models import LITE, SMALL
from support.paths import MANIFESTS, ROOT

from builders.measure.costs import model_costs
from zoo.runtime.header import read_header
from zoo.util.errors import RepositoryError


def test_a_cpu_engine_is_verified_and_a_gpu_engine_pending(farm: Farm) -> None:
    index = farm.repository.model_index(LITE)
    assert index is not None
    engines = {engine.targets[0]: engine for engine in index.engines}
    assert set(engines) == {"cpu-ort1.32-fp32", "sm86-rtx1.7-fp32", "sm86-rtx1.7-fp16"}
    cpu = engines["cpu-ort1.32-fp32"]
    assert cpu.status == "verified"
    assert cpu.verification is not None
    rows = cpu.verification.batches
    assert [row.batch for row in rows] == [1, 3, 4, 16]
    assert all(row.worst_cosine > 0.9999 and row.lost_rows == 0 for row in rows)
    assert cpu.benchmark is not None
    assert [row.batch for row in cpu.benchmark.batches] == [1, 4, 16]
    for label in ("sm86-rtx1.7-fp32", "sm86-rtx1.7-fp16"):
        assert engines[label].status == "pending"
        assert engines[label].precision_status == "unproven"
        assert engines[label].verification is None


def test_the_plan_on_disk_is_what_its_record_says(farm: Farm) -> None:
    for record in farm.repository.records(LITE):
        path = farm.repository.blobs.path(record.engine)
        assert path is not None
        assert path.stat().st_size == record.engine.size
        if record.inputs.toolchain.kind == "rtx":
            header = read_header(path.read_bytes()[:64])
            assert header.archs == record.inputs.archs == ("sm86",)
            assert header.version == record.inputs.toolchain.version
            assert record.targets == (f"sm86-rtx1.7-{record.inputs.precision}",)


def test_half_the_precision_is_half_the_size(farm: Farm) -> None:
    sizes = {r.targets[0]: r.engine.size for r in farm.repository.records(LITE)}
    assert sizes["sm86-rtx1.7-fp16"] < 0.6 * sizes["sm86-rtx1.7-fp32"]


def test_the_store_has_the_layout_of_the_design(farm: Farm) -> None:
    kinds = {entry.key.split("/")[0] for entry in farm.repository.store.list("")}
    hashed = {kind for kind in kinds if kind.endswith(".index.json")}
    assert hashed
    assert kinds - hashed == {
        "attestations", "blobs", "exports", "index", "index.json", "metadata", "records",
        "repository.json",
    }  # fmt: skip
    assert [path.name for path in (farm.store / ".incoming").iterdir()] == ["publish.lock"]


def test_costs_come_from_the_records(farm: Farm) -> None:
    (cost,) = model_costs(farm.repository)
    assert cost.model == LITE
    assert 10 < cost.weights_mib < 15  # 3.4 million weights
    assert cost.peak_mib > cost.weights_mib
    assert set(cost.engines) == {
        "cpu-ort1.32-fp32", "sm86-rtx1.7-fp32", "sm86-rtx1.7-fp16",
    }  # fmt: skip


def test_again_does_nothing_and_says_so(farm: Farm) -> None:
    before = farm.snapshot()
    done = farm.make(f"MODELS={LITE}", "GPU=cpu,sm86")
    assert done.returncode == 0
    assert counts(done) == Counts(current=3)
    assert farm.snapshot() == before


def test_a_broken_manifest_does_not_stop_the_others(copy: Farm) -> None:
    copy.edit("resnet50", "feature_dim", "feature_dims")
    done = copy.make(f"MODELS={LITE},resnet50", "GPU=cpu")
    assert done.returncode != 0
    assert counts(done) == Counts(current=1, failed=1)
    assert "backbone.feature_dims" in done.stdout
    assert copy.make(f"MODELS={LITE}", "GPU=cpu").returncode == 0


def test_a_relative_store_is_found_from_any_folder(dry_run: Farm, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "builders.cli", "--manifests", str(dry_run.manifests), "zoo",
         "--weights", "seeded", "--models", SMALL, "--gpu", "sm86", "--precision", "fp32",
         "--store", "here", "--site", "site"],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "here" / "index.json").exists()


def test_a_missing_engine_is_noticed(copy: Farm) -> None:
    record = next(r for r in copy.repository.records(LITE) if r.targets[0].startswith("cpu"))
    path = copy.repository.blobs.path(record.engine)
    assert path is not None
    path.unlink()
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert record.engine.sha256 in done.stdout
    assert copy.zoo("pull", LITE).returncode == RepositoryError.exit_code


def test_damage_is_found_and_repaired(copy: Farm) -> None:
    record = next(r for r in copy.repository.records(LITE) if r.targets[0].startswith("cpu"))
    path = copy.repository.blobs.path(record.engine)
    assert path is not None
    path.write_bytes(bytes(path.stat().st_size))

    def check(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "builders.cli", "check", "--store", str(copy.store)]
        return subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT)

    found = check()
    assert found.returncode == 10
    assert record.engine.sha256 in found.stdout
    assert check("--repair").returncode == 0
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert counts(done) == Counts(published=1)
    assert check().returncode == 0
    assert copy.zoo("pull", LITE).returncode == 0


def test_one_failing_model_does_not_stop_the_others(dry_run: Farm) -> None:
    index = dry_run.repository.index()
    assert index is not None
    assert [row.model for row in index.models] == [SMALL]


def test_the_seeded_state_is_kept_as_a_blob(dry_run: Farm) -> None:
    (key,) = (entry.key for entry in dry_run.repository.store.list("states/"))
    state = json.loads(dry_run.repository.store.get(key))["state"]
    path = dry_run.store / "blobs" / "sha256" / state["sha256"][:2] / state["sha256"]
    assert path.stat().st_size == state["size"]


def test_a_release_refuses_to_mix_with_a_dry_run(dry_run: Farm) -> None:
    done = dry_run.make(f"MODELS={SMALL}", "GPU=cpu")
    assert done.returncode != 0
    assert "dry-run" in done.stderr
    assert "release" in done.stderr


def test_a_new_model_of_a_known_cut_is_a_new_file_and_nothing_else(
    dry_run_copy: Farm,
) -> None:
    text = (MANIFESTS / "resnet50.toml").read_text()
    for old, new in (
        ('id = "resnet50"', 'id = "resnet18"'),
        ('arch = "resnet50"', 'arch = "resnet18"'),
        ("timm/resnet50.a1_in1k", "timm/resnet18.a1_in1k"),
        ("feature_dim = 2048", "feature_dim = 512"),
    ):
        assert old in text
        text = text.replace(old, new)
    (dry_run_copy.manifests / "resnet18.toml").write_text(text)
    done = dry_run_copy.make("WEIGHTS=seeded", "MODELS=resnet18", "GPU=cpu,sm86", "PRECISION=fp32")
    assert done.returncode == 0, done.stdout
    assert counts(done) == Counts(published=2)
