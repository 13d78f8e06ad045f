"""The real pipeline: real ImageNet weights of one model, seeded weights of another."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import MANIFESTS, ROOT
from farm import Farm

from builders.backends.tensorrt_rtx import read_header
from builders.costs import model_costs
from builders.photos import _GOLDEN, _path
from zoo.manifest import load_manifest
from zoo.preprocess import batch_of, open_photo
from zoo.record import ExportRecord

LITE = "efficientnet_lite0"
SMALL = "mobilenetv3_small_100"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A repository with one model on two targets, from real weights."""
    folder = tmp_path_factory.mktemp("farm")
    shutil.copytree(MANIFESTS, folder / "manifests")
    made = Farm(folder=folder, manifests=folder / "manifests")
    done = made.make(f"MODELS={LITE}", "GPU=cpu,sm86")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 published" in done.stdout
    return made


@pytest.fixture
def copy(farm: Farm, tmp_path: Path) -> Farm:
    """The same repository, for a test to change."""
    shutil.copytree(farm.store, tmp_path / "store")
    shutil.copytree(farm.manifests, tmp_path / "manifests")
    return Farm(folder=tmp_path, manifests=tmp_path / "manifests")


def zoo(farm: Farm, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zoo.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=farm.folder,
        timeout=300,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ZOO_STORE": str(farm.store),
            "ZOO_HOME": str(farm.folder / "home"),
            **environment,
        },
    )


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
        path = farm.repository.blob_path(record.engine)
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
    kinds = {key.split("/")[0] for key in farm.repository.store.list("")}
    assert kinds == {
        "attestations", "blobs", "exports", "index", "index.json", "records", "repository.json",
    }  # fmt: skip
    assert [path.name for path in (farm.store / ".incoming").iterdir()] == ["index.lock"]


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
    assert "3 already published, nothing to do" in done.stdout
    assert farm.snapshot() == before


def test_the_client_lists_shows_pulls_and_runs(farm: Farm, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    open_photo(_path(_GOLDEN[0])).save(photo)
    assert f"{LITE} " in zoo(farm, "list").stdout
    shown = zoo(farm, "show", LITE).stdout
    assert "verified" in shown
    assert "pending" in shown
    assert "1280" in shown
    pulled = zoo(farm, "pull", LITE)
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).is_file()
    out = tmp_path / "features.npy"
    ran = zoo(farm, "run", LITE, str(photo), str(photo), "-o", str(out))
    assert ran.returncode == 0, ran.stderr
    assert "(2, 1280)" in ran.stdout
    features = np.load(out)
    assert features.shape == (2, 1280)
    assert np.isfinite(features).all()
    assert np.allclose(features[0], features[1])


def test_the_features_of_zoo_run_are_pytorchs(farm: Farm, tmp_path: Path) -> None:
    import torch

    from builders import backbone, weights
    from builders.weights.state import load_state

    manifest = load_manifest(MANIFESTS / f"{LITE}.toml")
    model = backbone.create(manifest)
    load_state(model, manifest, weights.fetch(manifest, MANIFESTS))
    cut = backbone.Backbone(model, manifest.backbone)
    photo = _path(_GOLDEN[1])
    images = batch_of([open_photo(photo)], manifest.preprocess.plain)
    with torch.inference_mode():
        expected = cut(torch.from_numpy(images)).numpy()
    out = tmp_path / "f.npy"
    assert zoo(farm, "run", LITE, str(photo), "-o", str(out)).returncode == 0
    assert np.abs(np.load(out) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_pending_engine_is_given_only_when_asked_for(farm: Farm) -> None:
    refused = zoo(farm, "pull", LITE, "--target", "sm86-rtx1.7-fp16")
    assert refused.returncode == 11
    assert "--allow-pending" in refused.stderr
    given = zoo(farm, "pull", LITE, "--target", "sm86-rtx1.7-fp16", "--allow-pending")
    assert given.returncode == 0
    assert Path(given.stdout.strip()).read_bytes()[:4] == b"vtrt"


def test_a_damaged_engine_is_not_loaded(copy: Farm) -> None:
    record = next(r for r in copy.repository.records(LITE) if r.targets[0].startswith("cpu"))
    path = copy.repository.blob_path(record.engine)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = zoo(copy, "pull", LITE)
    assert done.returncode == 10
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((copy.folder / "home").rglob("*" + record.engine.sha256 + "*"))


def test_a_changed_record_is_noticed(copy: Farm) -> None:
    for path in (copy.store / "records" / LITE).iterdir():
        path.write_text(
            path.read_text().replace('"mean":[0.5', '"mean":[0.9').replace("0.875", "0.5")
        )
    done = zoo(copy, "pull", LITE)
    assert done.returncode == 10
    assert "is not what the index says" in done.stderr


def test_a_broken_manifest_does_not_stop_the_others(copy: Farm) -> None:
    copy.edit("resnet50", "feature_dim", "feature_dims")
    done = copy.make(f"MODELS={LITE},resnet50", "GPU=cpu")
    assert done.returncode != 0
    assert "1 already published, nothing to do, 1 failed" in done.stdout
    assert "backbone.feature_dims: unknown field" in done.stdout
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
    path = copy.repository.blob_path(record.engine)
    assert path is not None
    path.unlink()
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert "which is missing" in done.stdout
    assert "missing" in zoo(copy, "pull", LITE).stderr


def test_damage_is_found_and_repaired(copy: Farm) -> None:
    record = next(r for r in copy.repository.records(LITE) if r.targets[0].startswith("cpu"))
    path = copy.repository.blob_path(record.engine)
    assert path is not None
    path.write_bytes(bytes(path.stat().st_size))

    def check(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "builders.cli", "check", "--store", str(copy.store)]
        return subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT)

    found = check()
    assert found.returncode == 10
    assert f"{record.engine.sha256} is damaged" in found.stdout
    assert check("--repair").returncode == 0
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert "1 published" in done.stdout
    assert "all whole" in check().stdout
    assert zoo(copy, "pull", LITE).returncode == 0


def published(farm: Farm) -> dict[str, str]:
    """Target to engine digest."""
    index = farm.repository.model_index(LITE)
    assert index is not None
    return {label: e.engine.sha256 for e in index.engines for label in e.targets}


def exports(farm: Farm) -> list[ExportRecord]:
    store = farm.repository.store
    keys = store.list(f"exports/{LITE}/")
    return [ExportRecord.model_validate_json(store.get(key)) for key in keys]


def test_changed_text_changes_the_page_and_nothing_else(copy: Farm) -> None:
    before = copy.snapshot()
    copy.edit(LITE, "EfficientNet made for small devices", "A network with another text")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu,sm86")
    assert "3 already published" in done.stdout
    after = copy.snapshot()
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {f"index/{LITE}.json", "index.json"}
    assert "another text" in (copy.folder / "site" / "index.html").read_text()


def test_a_changed_tolerance_verifies_again_and_builds_nothing(copy: Farm) -> None:
    before = copy.snapshot()
    copy.edit(LITE, "cosine = 0.9999", "cosine = 0.99995")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode == 0, done.stdout
    assert "1 verified again" in done.stdout
    added = sorted(key.split("/")[0] for key in copy.snapshot() if key not in before)
    assert added == ["attestations", "attestations"]


def test_a_tolerance_that_is_missed_withdraws_the_engine(copy: Farm) -> None:
    copy.edit(LITE, "relative_error = 0.002", "relative_error = 0.00000001")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert "relative error" in done.stdout
    assert "to reproduce" in done.stdout
    index = copy.repository.model_index(LITE)
    assert index is not None
    engines = {e.targets[0]: e for e in index.engines}
    assert engines["cpu-ort1.32-fp32"].status == "withdrawn"
    refused = zoo(copy, "pull", LITE)
    assert refused.returncode == 11
    assert "withdrawn" in refused.stderr
    again = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert again.returncode != 0
    assert "withdrawn" in again.stdout
    copy.edit(LITE, "relative_error = 0.00000001", "relative_error = 0.002")
    back = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert "1 verified again" in back.stdout
    assert zoo(copy, "pull", LITE).returncode == 0


def test_a_new_engine_that_misses_is_not_published(copy: Farm, tmp_path: Path) -> None:
    for key in list(copy.repository.store.list("records/")):
        (copy.store / key).unlink()
    shutil.rmtree(copy.store / "index")
    (copy.store / "index.json").unlink()
    copy.edit(LITE, "relative_error = 0.002", "relative_error = 0.00000001")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert "not published" in done.stdout
    assert copy.repository.records(LITE) == []
    command = done.stdout.partition("to reproduce: ")[2].splitlines()[0].split()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 8
    assert "relative error" in again.stderr
    verdict = json.loads((Path(command[-1]) / "result.json").read_text())["verification"]
    assert not verdict["passed"]


def test_a_changed_mean_makes_a_new_export_and_golden(copy: Farm) -> None:
    before = exports(copy)
    copy.edit(LITE, "mean = [0.5, 0.5, 0.5]", "mean = [0.45, 0.5, 0.5]")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu,sm86", "PRECISION=fp32")
    assert done.returncode == 0, done.stdout
    new = [record for record in exports(copy) if record not in before]
    assert len(new) == 1
    assert new[0].golden not in [record.golden for record in before]
    # Normalisation is outside the graph, so the ONNX is the same; but a record says how its engine
    # is fed, and that has changed.
    assert new[0].onnx in [record.onnx for record in before]
    index = copy.repository.model_index(LITE)
    assert index is not None
    # What was not asked for is of the old meaning and leaves the index.
    assert {e.targets[0] for e in index.engines} == {"cpu-ort1.32-fp32", "sm86-rtx1.7-fp32"}
    assert all(entry.preprocess.mean == (0.45, 0.5, 0.5) for entry in index.engines)


def test_a_changed_cut_makes_new_engines(copy: Farm) -> None:
    before = published(copy)
    copy.edit(LITE, 'cut = "pooled"', 'cut = "flattened"')
    copy.edit(LITE, "feature_dim = 1280", "feature_dim = 62720")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode == 0, done.stdout
    after = published(copy)
    assert after["cpu-ort1.32-fp32"] != before["cpu-ort1.32-fp32"]
    index = copy.repository.model_index(LITE)
    assert index is not None
    widths = {label: e.feature_dim for e in index.engines for label in e.targets}
    assert widths == {"cpu-ort1.32-fp32": 62720}  # the others are of another cut


def test_a_wrong_width_is_an_error_at_export(copy: Farm) -> None:
    copy.edit(LITE, "feature_dim = 1280", "feature_dim = 1281")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert "the manifest says 1281, the network gives features of shape (1280,)" in done.stdout


def test_an_engine_for_more_gpus_serves_each_of_them(copy: Farm) -> None:
    first = copy.make(f"MODELS={LITE}", "GPU=sm86,sm89,sm120", "PRECISION=fp16")
    assert "1 published" in first.stdout, first.stdout
    engines = published(copy)
    labels = {f"{arch}-rtx1.7-fp16" for arch in ("sm86", "sm89", "sm120")}
    assert len({engines[label] for label in labels}) == 1
    again = copy.make(f"MODELS={LITE}", "GPU=sm89", "PRECISION=fp16")
    assert "1 already published" in again.stdout


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A seeded repository; one of its two models can't be built."""
    folder = tmp_path_factory.mktemp("dry")
    (folder / "manifests").mkdir()
    for name in (SMALL, LITE, "resnet50"):
        shutil.copy(MANIFESTS / f"{name}.toml", folder / "manifests")
    made = Farm(folder=folder, manifests=folder / "manifests")
    made.edit(LITE, 'tag = "in1k"', 'tag = "nothing_in1k"')
    made.edit("resnet50", 'family = "resnet"', 'family = "other"')
    done = made.make("WEIGHTS=seeded", f"MODELS={SMALL},{LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert f"FAILED {LITE}: timm has no tag 'nothing_in1k'" in done.stdout
    assert "1 published, 1 failed" in done.stdout
    return made


def test_one_failing_model_does_not_stop_the_others(dry_run: Farm) -> None:
    index = dry_run.repository.index()
    assert index is not None
    assert [row.model for row in index.models] == [SMALL]


def test_seeded_engines_are_marked_and_refused(dry_run: Farm) -> None:
    assert dry_run.repository.kind() == "dry-run"
    assert all(record.dry_run for record in dry_run.repository.records(SMALL))
    assert "Dry run" in (dry_run.folder / "site" / "index.html").read_text()
    assert "DRY RUN" in zoo(dry_run, "list").stderr
    refused = zoo(dry_run, "pull", SMALL)
    assert refused.returncode == 11
    assert "--allow-seeded" in refused.stderr
    assert zoo(dry_run, "pull", SMALL, "--allow-seeded").returncode == 0


def test_the_seeded_state_is_kept_as_a_blob(dry_run: Farm) -> None:
    (key,) = dry_run.repository.store.list("states/")
    state = json.loads(dry_run.repository.store.get(key))["state"]
    path = dry_run.store / "blobs" / "sha256" / state["sha256"][:2] / state["sha256"]
    assert path.stat().st_size == state["size"]


def test_a_release_refuses_to_mix_with_a_dry_run(dry_run: Farm) -> None:
    done = dry_run.make(f"MODELS={SMALL}", "GPU=cpu")
    assert done.returncode != 0
    assert "dry-run repository and this is a release" in done.stderr


def test_a_new_model_of_a_known_cut_is_a_new_file_and_nothing_else(dry_run: Farm) -> None:
    text = (MANIFESTS / "resnet50.toml").read_text()
    for old, new in (
        ('id = "resnet50"', 'id = "resnet18"'),
        ('arch = "resnet50"', 'arch = "resnet18"'),
        ("timm/resnet50.a1_in1k", "timm/resnet18.a1_in1k"),
        ("feature_dim = 2048", "feature_dim = 512"),
    ):
        assert old in text
        text = text.replace(old, new)
    (dry_run.manifests / "resnet18.toml").write_text(text)
    done = dry_run.make("WEIGHTS=seeded", "MODELS=resnet18", "GPU=cpu,sm86", "PRECISION=fp32")
    assert done.returncode == 0, done.stdout
    assert "2 published" in done.stdout


def visible(farm: Farm) -> None:
    """Checks that everything that can be seen is whole."""
    repository = farm.repository
    for record in repository.records(SMALL):
        assert repository.has_blob(record.engine)
        assert repository.has_blob(record.golden)
        assert repository.attestations(record.engine.sha256)
    index = repository.index()
    for row in index.models if index else ():
        model = repository.model_index(row.model)
        assert model is not None
        for engine in model.engines:
            assert engine.status == "verified"
            assert repository.has_blob(engine.engine)
    for key in repository.store.list("blobs/"):
        data = repository.store.get(key)
        assert hashlib.sha256(data).hexdigest() == key.rsplit("/", 1)[1]


def test_a_kill_at_any_moment_leaves_no_visible_half(dry_run: Farm, tmp_path: Path) -> None:
    """Kills `make zoo` and all that it started, then runs it to its end."""
    random.seed(0)
    farm = Farm(folder=tmp_path, manifests=dry_run.manifests)
    # The state is there, so that the kills fall on export, build, verification and publication.
    for part in ("states", "blobs", "repository.json"):
        source = dry_run.store / part
        target = farm.store / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    asked = ("WEIGHTS=seeded", f"MODELS={SMALL}", "GPU=cpu")
    for _ in range(12):
        process = subprocess.Popen(
            farm.command(*asked), cwd=ROOT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(timeout=random.uniform(0.2, 12))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.05)
        visible(farm)
    done = farm.make(*asked)
    assert done.returncode == 0, done.stdout
    visible(farm)
    index = farm.repository.index()
    assert index is not None
    assert [row.model for row in index.models] == [SMALL]
