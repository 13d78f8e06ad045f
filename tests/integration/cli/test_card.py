"""The command of the card, literally: `make zoo GPU=sm86` with a hub, and nothing before it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.fake_hub import FakeHub
from support.hub_manifests import copy_open, pin
from support.make_farm import Counts, Farm, counts
from support.models import MISSION
from support.paths import MANIFESTS

from builders.export import backbone
from builders.photos.bundled import statistics_photos
from builders.weights import locks, seeded
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import (
    DigestFrom,
    HubWeights,
    Manifest,
    load_manifest,
    load_manifests,
)
from zoo.util.digest import sha256_file
from zoo.util.names import counted

SMALL_ONE = ("mobilenetv3_small_100",)
ALL = tuple(
    name
    for name, manifest in load_manifests(MANIFESTS).items()
    if name in MISSION and isinstance(manifest.weights, HubWeights)
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


def run_card(hub: FakeHub, names: tuple[str, ...], folder: Path) -> Farm:
    manifests = folder / "manifests"
    for name in names:
        copy_open(name, manifests)
    for manifest in load_manifests(manifests).values():
        serve(hub, manifest, folder)
    farm = Farm(folder=folder, manifests=manifests)
    refused = farm.make("GPU=sm86", "LOCKED=1")
    assert refused.returncode != 0
    assert f"{len(names)} failed" in refused.stdout
    assert "make lock" in refused.stdout
    assert not locks.lock_path(manifests).exists()
    done = farm.make("GPU=sm86")
    assert done.returncode == 0, done.stdout
    assert counts(done) == Counts(published=2 * len(names))
    assert f"{counted(len(names), 'model')} locked" in done.stdout
    pins = locks.read_locks(manifests).models
    assert set(pins) == set(names)
    assert {pin.digest_from for pin in pins.values()} == {DigestFrom.DOWNLOAD}
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
    asked = len(hub.requests)
    again = farm.make("GPU=sm86", "LOCKED=1")
    assert counts(again) == Counts(current=2 * len(names))
    assert again.returncode == 0
    assert len(hub.requests) == asked  # what is locked needs no hub
    return farm


@pytest.mark.full
def test_a_model_goes_the_way_of_the_card(hub: FakeHub, tmp_path: Path) -> None:
    farm = run_card(hub, SMALL_ONE, tmp_path)
    before = locks.lock_path(farm.manifests).read_bytes()
    copy_open("densenet121", farm.manifests)
    done = farm.make("GPU=sm86")
    assert done.returncode != 0
    assert counts(done) == Counts(current=2, failed=1)
    assert re.search(r"^FAILED densenet121: timm/densenet121.ra_in1k: .*\b404\b", done.stdout, re.M)
    assert locks.lock_path(farm.manifests).read_bytes() == before


@pytest.mark.full
def test_a_single_record_is_confirmed_by_a_download_or_refused(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_open(SMALL_ONE[0], tmp_path / "manifests")
    manifest = load_manifest(path)
    serve(hub, manifest, tmp_path)
    assert isinstance(manifest.weights, HubWeights)
    served = hub.repositories[manifest.weights.repository].commits[0][1]["model.safetensors"]
    farm = Farm(folder=tmp_path, manifests=path.parent)
    opened = path.read_text()

    pin(path, "0" * 64, digest_from="one-public-file")
    for variables in ([], ["LOCKED=1"]):
        done = farm.make("GPU=cpu", "PRECISION=fp32", *variables)
        assert counts(done) == Counts(failed=1)
        assert "0" * 64 in done.stdout
        assert sha256_file(served) in done.stdout
        assert not locks.lock_path(path.parent).exists()
    assert not hub.downloads["model.safetensors"]

    path.write_text(opened)
    pin(path, sha256_file(served), digest_from="one-public-file")
    done = farm.make("GPU=cpu", "PRECISION=fp32", "LOCKED=1")
    assert counts(done) == Counts(published=1), done.stdout
    assert re.search(rf" hash of {SMALL_ONE[0]}.*LOCKED=1", done.stdout)
    assert not locks.lock_path(path.parent).exists()  # it says so, and writes nothing
    [key] = [record.export_key for record in farm.repository.records(SMALL_ONE[0])]

    shutil.rmtree(farm.store)
    done = farm.make("GPU=cpu", "PRECISION=fp32")
    assert counts(done) == Counts(published=1), done.stdout
    assert re.search(rf"manifests\.lock: .* hash of {SMALL_ONE[0]}$", done.stdout, re.MULTILINE)
    locked = locks.read_locks(path.parent).models[SMALL_ONE[0]]
    assert locked.digest_from is DigestFrom.DOWNLOAD
    [record] = farm.repository.records(SMALL_ONE[0])
    assert record.export_key == key  # the lock's hash and the manifest's are one

    shutil.rmtree(farm.store)
    hub.stop()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = farm.make("GPU=cpu", "PRECISION=fp32", "LOCKED=1")
    assert counts(done) == Counts(published=1), done.stdout


ALIKE = (
    "densenet169", "resnet101", "resnet152", "vgg19_bn", "vit_large_patch16_224",
    *(f"efficientnet_b{size}" for size in range(2, 8)),
)  # fmt: skip
"""Models left out for the time they take: they differ from others of their family in depth, width
and input size alone."""

WIDE = ("vgg16_bn", "vit_base_patch16_224")
EFFICIENTNETS = tuple(name for name in ALL if name.startswith("efficientnet"))
OTHERS = tuple(name for name in ALL if name not in {*WIDE, *EFFICIENTNETS})
PORTIONS = tuple(
    tuple(name for name in portion if name not in ALIKE)
    for portion in (EFFICIENTNETS, WIDE, OTHERS)
)
"""Models that go through the hub together. One portion's weights lie on the disk about five times:
with the hub, in its cache, as exports and as engines."""

GIB_OF_DISK = 16
"""For two portions at once, as ``make test-full`` runs them."""


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "names", PORTIONS, ids=lambda names: f"{names[0]} and {len(names) - 1} more"
)
def test_models_of_the_mission_go_the_way_of_the_card(
    hub: FakeHub, tmp_path: Path, names: tuple[str, ...]
) -> None:
    free = shutil.disk_usage(tmp_path).free / 2**30
    if free < GIB_OF_DISK:
        pytest.skip(f"needs {GIB_OF_DISK} GiB of disk under {tmp_path}; {free:.1f} are free")
    assert sum(map(len, PORTIONS)) == len(ALL) - len(ALIKE) == 10
    run_card(hub, names, tmp_path)
