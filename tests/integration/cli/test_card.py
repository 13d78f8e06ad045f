"""The command of the card, literally: lock against a hub, then `make zoo GPU=sm86`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.fake_hub import FakeHub
from support.make_farm import Counts, Farm, counts
from support.paths import MANIFESTS, ROOT

from builders.export import backbone
from builders.photos.bundled import statistics_photos
from builders.weights import seeded
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import HubWeights, Manifest, load_manifests

SMALL_ONE = ("mobilenetv3_small_100",)
ALL = tuple(
    name
    for name, manifest in load_manifests(MANIFESTS).items()
    if isinstance(manifest.weights, HubWeights)
)


def serve(hub: FakeHub, manifest: Manifest, folder: Path) -> None:
    """Puts a model's whole state on the hub, as the real repository would hold it."""
    assert isinstance(manifest.weights, HubWeights)
    pixels = statistics_photos(manifest.preprocess)
    images = normalise(pixels, manifest.preprocess.plain)
    state = seeded.make_state(lambda: backbone.create(manifest), images)
    if manifest.id == "inception_v3":  # the real file holds the auxiliary head too
        state["AuxLogits.fc.weight"] = torch.zeros(1000, 768)
    path = folder / f"{manifest.id}.safetensors"
    save_file(state, path)
    hub.add(manifest.weights.repository, manifest.weights.file, path)


def run_card(hub: FakeHub, names: tuple[str, ...], folder: Path) -> None:
    manifests = folder / "manifests"
    manifests.mkdir()
    for name in names:
        shutil.copy(MANIFESTS / f"{name}.toml", manifests)
    for manifest in load_manifests(manifests).values():
        serve(hub, manifest, folder)
    farm = Farm(folder=folder, manifests=manifests)
    refused = farm.make("GPU=sm86")
    assert refused.returncode != 0
    assert f"{len(names)} failed" in refused.stdout
    assert "zoo-farm lock" in refused.stdout
    locked = subprocess.run(
        [sys.executable, "-m", "builders.cli", "--manifests", str(manifests), "lock"],
        capture_output=True, text=True, cwd=ROOT, timeout=600, env=dict(os.environ),
    )  # fmt: skip
    assert locked.returncode == 0, locked.stderr
    done = farm.make("GPU=sm86")
    assert done.returncode == 0, done.stdout
    assert counts(done) == Counts(published=2 * len(names))
    assert farm.repository.kind() == "release"
    index = farm.repository.index()
    assert index is not None
    for row in index.models:
        # With seeded weights the advisor may have to keep operators in fp32.
        labels = {label.removesuffix("-mixed") for label in row.targets}
        assert labels == {"sm86-rtx1.7-fp32", "sm86-rtx1.7-fp16"}
        for record in farm.repository.records(row.model):
            assert not record.dry_run
            assert record.weights.startswith("timm/")
    again = farm.make("GPU=sm86")
    assert counts(again) == Counts(current=2 * len(names))
    assert again.returncode == 0


def test_a_model_goes_the_way_of_the_card(hub: FakeHub, tmp_path: Path) -> None:
    run_card(hub, SMALL_ONE, tmp_path)


PORTIONS = (("vit_large_patch16_224",), ("vgg19_bn", "vgg16_bn", "vit_base_patch16_224"))
"""Models that go through the hub together; the rest is another portion. One portion's weights lie
on the disk about five times: with the hub, in its cache, as exports and as engines."""

GIB_OF_DISK = 8


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "names",
    [*PORTIONS, tuple(name for name in ALL if not any(name in portion for portion in PORTIONS))],
    ids=lambda names: f"{names[0]} and {len(names) - 1} more",
)
def test_all_models_of_the_mission_go_the_way_of_the_card(
    hub: FakeHub, tmp_path: Path, names: tuple[str, ...]
) -> None:
    free = shutil.disk_usage(tmp_path).free / 2**30
    if free < GIB_OF_DISK:
        pytest.skip(f"needs {GIB_OF_DISK} GiB of disk under {tmp_path}; {free:.1f} are free")
    assert len(ALL) == 21
    run_card(hub, names, tmp_path)
