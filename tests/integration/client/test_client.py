"""The client on a repository that the farm made: lists, shows, pulls, runs, refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.make_farm import Farm
from support.models import LITE, SMALL
from support.paths import MANIFESTS

from builders.photos.bundled import _GOLDEN, _path
from zoo.inference.preprocess import batch_of, open_photo
from zoo.schema.manifest import load_manifest


def test_the_client_lists_shows_pulls_and_runs(farm: Farm, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    open_photo(_path(_GOLDEN[0])).save(photo)
    assert f"{LITE} " in farm.zoo("list").stdout
    shown = farm.zoo("show", LITE).stdout
    assert "verified" in shown
    assert "pending" in shown
    assert "1280" in shown
    pulled = farm.zoo("pull", LITE)
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).is_file()
    out = tmp_path / "features.npy"
    ran = farm.zoo("run", LITE, str(photo), str(photo), "-o", str(out))
    assert ran.returncode == 0, ran.stderr
    assert "(2, 1280)" in ran.stdout
    features = np.load(out)
    assert features.shape == (2, 1280)
    assert np.isfinite(features).all()
    assert np.allclose(features[0], features[1])


def test_the_features_of_zoo_run_are_pytorchs(farm: Farm, tmp_path: Path) -> None:
    import torch

    from builders import weights
    from builders.export import backbone
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
    assert farm.zoo("run", LITE, str(photo), "-o", str(out)).returncode == 0
    assert np.abs(np.load(out) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_pending_engine_is_given_only_when_asked_for(farm: Farm) -> None:
    refused = farm.zoo("pull", LITE, "--target", "sm86-rtx1.7-fp16")
    assert refused.returncode == 11
    assert "--allow-pending" in refused.stderr
    given = farm.zoo("pull", LITE, "--target", "sm86-rtx1.7-fp16", "--allow-pending")
    assert given.returncode == 0
    assert Path(given.stdout.strip()).read_bytes()[:4] == b"vtrt"


def test_seeded_engines_are_marked_and_refused(dry_run: Farm) -> None:
    assert dry_run.repository.kind() == "dry-run"
    assert all(record.dry_run for record in dry_run.repository.records(SMALL))
    assert "Dry run" in (dry_run.folder / "site" / "index.html").read_text()
    assert "DRY RUN" in dry_run.zoo("list").stderr
    refused = dry_run.zoo("pull", SMALL)
    assert refused.returncode == 11
    assert "--allow-seeded" in refused.stderr
    assert dry_run.zoo("pull", SMALL, "--allow-seeded").returncode == 0


def test_a_damaged_engine_is_not_loaded(copy: Farm) -> None:
    record = next(r for r in copy.repository.records(LITE) if r.targets[0].startswith("cpu"))
    path = copy.repository.blobs.path(record.engine)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = copy.zoo("pull", LITE)
    assert done.returncode == 10
    assert record.engine.sha256 in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((copy.folder / "home/engines").rglob("*"))


def test_a_changed_record_is_noticed(copy: Farm) -> None:
    for path in (copy.store / "records" / LITE).iterdir():
        path.write_text(
            path.read_text().replace('"mean":[0.5', '"mean":[0.9').replace("0.875", "0.5")
        )
    done = copy.zoo("pull", LITE)
    assert done.returncode == 10
    assert f"records/{LITE}/" in done.stderr
