"""Accuracy on labelled photos: which are taken, what is measured, and the table."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.goldens import assert_golden, raises_golden
from support.make_farm import Counts, Farm, counts
from support.models import LITE, SMALL
from support.paths import ROOT
from support.records import build_output

from builders.executors import Outcome
from builders.jobs.messages import BuildOutput, Job, ReferenceOutput, Verification
from builders.measure.accuracy import FOLDS, linear_probe
from builders.measure.imagenet_sample import imagenet_sample
from builders.photos.calibration import shipped
from builders.photos.labelled import LEAST_OF_CLASS, read_labelled
from builders.run import linear_probe as probing
from zoo.inference.preprocess import open_photo
from zoo.schema.manifest import load_manifests
from zoo.util.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Crops of three photos, a class each: easy to tell apart."""
    random = np.random.default_rng(0)
    for path in shipped().paths[:3]:
        photo, kind = open_photo(path), tmp_path / "labelled" / path.stem
        kind.mkdir(parents=True)
        for number in range(2 * LEAST_OF_CLASS):
            left, top = (int(random.integers(0, size // 2)) for size in photo.size)
            box = (left, top, left + photo.width // 2, top + photo.height // 2)
            photo.crop(box).save(kind / f"{number}.png")
    return tmp_path / "labelled"


def test_a_folder_for_each_class_is_read_and_what_is_left_out_is_said(folder: Path) -> None:
    first = sorted(folder.iterdir())[0]
    (first / "broken.jpg").write_bytes(b"no photo")
    (folder / "few").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "few" / "one.png")
    shutil.copy(first / "1.png", sorted(folder.iterdir())[2] / "again.png")
    said: list[str] = []
    chosen = read_labelled(folder, said.append)
    labelled = chosen.opened()
    assert labelled.classes == 3
    (first / "0.png").rename(first / "zero.png")
    assert read_labelled(folder, lambda _: None).sha256 == chosen.sha256  # names say nothing
    assert len(labelled.photos) == len(labelled.labels) == 6 * LEAST_OF_CLASS
    assert not labelled.imagenet
    assert len(said) == 3
    assert_golden("measure/left-out", "\n".join(sorted(said)))


def test_one_class_is_not_enough(folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    sorted(folder.iterdir())[0].rename(one / "class")
    with raises_golden(UsageError, "measure/one-class"):
        read_labelled(one, lambda _: None)
    with raises_golden(UsageError, "measure/no-folder"):
        read_labelled(tmp_path / "nowhere", lambda _: None)


def test_twenty_labelled_photos_come_from_a_package() -> None:
    labelled = imagenet_sample()
    assert labelled.imagenet
    assert len(labelled.photos) == 20
    assert labelled.labels[:3].tolist() == [243, 559, 438]


def test_a_linear_probe_tells_good_features_from_bad() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 4 * FOLDS)
    noise = random.standard_normal((len(labels), 16)).astype(np.float32)
    good = noise.copy()
    good[:, 3] += 20 * labels
    assert linear_probe(good, labels) == 1.0
    worse = linear_probe(noise, labels)
    assert worse is not None
    assert worse < 0.9
    assert linear_probe(good, labels) == linear_probe(good, labels)
    assert linear_probe(good[: 4 * FOLDS + 2], labels[: 4 * FOLDS + 2]) is None


@pytest.mark.full
def test_engines_are_measured_beside_pytorch(dry_run_copy: Farm, folder: Path) -> None:
    command = [sys.executable, "-m", "builders.cli", "--manifests", str(dry_run_copy.manifests)]
    command += ["accuracy", "--store", str(dry_run_copy.store), "--models", SMALL]
    done = subprocess.run(
        [*command, "--labelled", str(folder)], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if SMALL in line]
    assert [row[1] for row in rows] == ["PyTorch", "cpu-ort1.32-fp32"]
    assert rows[0][3] == rows[1][3]
    assert rows[0][3].endswith("%")
    assert float(rows[1][4]) > 0.9999
    assert "3 classes" in done.stdout
    refused = subprocess.run(
        [*command, "--labelled", str(folder / "nowhere")],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert refused.returncode == 2
    assert str(folder / "nowhere") in refused.stderr


def blobs(farm: Farm) -> set[str]:
    return {entry.key for entry in farm.repository.store.list("blobs/")}


def test_a_linear_probe_is_part_of_the_verdict(copy: Farm, folder: Path) -> None:
    asked, before = (f"MODELS={LITE}", "GPU=cpu", "PRECISION=fp32"), blobs(copy)
    done = copy.make(*asked, f"LABELLED={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(done) == Counts(verified=1)
    index = copy.repository.model_index(LITE)
    assert index is not None
    [engine] = [one for one in index.current if one.toolchain.kind == "ort"]
    assert engine.verification is not None
    assert engine.verification.probe is not None
    assert engine.verification.probe.photos == 30
    assert engine.verification.probe.engine == engine.verification.probe.pytorch > 0.9
    assert " 30 labelled photos: " in copy.zoo("show", LITE).stdout
    for again in ((*asked, f"LABELLED={folder}"), asked):
        assert counts(copy.make(*again)) == Counts(current=1)
    assert blobs(copy) == before  # the photos and their features stay where they are
    assert not list(copy.folder.rglob("*.npz"))
    refused = copy.make(*asked, f"LABELLED={folder}", "EXECUTOR=dask", "SCHEDULER=tls://h:1")
    assert re.search(r"LABELLED=.*EXECUTOR=dask", refused.stderr)


def test_a_loss_counts_when_it_is_more_than_noise(folder: Path) -> None:
    pytorch = np.arange(1000) % 10 > 0  # 90% are right
    worse = pytorch & (np.arange(1000) % 20 != 1)  # 85%
    assert probing.miss(probing.compare(pytorch, pytorch, 0.0)) is None
    said = probing.miss(probing.compare(pytorch, worse, 0.02))
    assert said is not None
    assert_golden("measure/probe-fell", said)
    few = probing.compare(pytorch[:20], worse[:20], 0.02)
    assert few.fall == 0.05
    assert probing.miss(few) is None  # one photo of twenty


def test_features_that_lost_the_classes_are_not_published(
    farm: Farm, folder: Path, tmp_path: Path
) -> None:
    """The reference and the engine's features are files: these are mixed up, row by row."""
    manifest, labelled = load_manifests(farm.manifests)[LITE], read_labelled(folder, print)
    random, labels = np.random.default_rng(0), np.array(labelled.labels)
    means = random.standard_normal((3, 1280))
    features = means[labels] + random.standard_normal((len(labels), 1280))
    np.savez(tmp_path / "labelled.npz", features=features, labels=labels, images=labels)

    @contextmanager
    def run(label: str, job: Job) -> Iterator[Outcome]:
        yield Outcome(result=ReferenceOutput(file="labelled.npz", cost={}), folder=tmp_path)

    asked = probing.Probing(labelled, tmp_path / "private", farm.manifests, run, "memory://")
    verification = Verification(passed=True, reason=None, batches=(), labelled="found.npy")
    output = build_output(engine=None, verification=verification)
    verdicts = []
    overflown = features.copy()
    overflown[4, 7] = np.inf
    for found in (features, random.permutation(features), overflown):
        np.save(tmp_path / "found.npy", found)
        outcome = asked.with_probe(Outcome(result=output, folder=tmp_path), manifest, "int8")
        assert isinstance(outcome.result, BuildOutput)
        assert outcome.result.verification is not None
        verdicts.append(outcome.result.verification)
    assert [one.passed for one in verdicts] == [True, False, False]
    assert "30 labelled photos" in str(verdicts[1].reason)
    assert_golden("measure/probe-not-finite", verdicts[2].reason)
    asked.close()
    assert not (tmp_path / "private").exists()


def test_seeded_weights_have_no_accuracy_to_lose(dry_run_copy: Farm, folder: Path) -> None:
    asked = (f"MODELS={SMALL}", "GPU=cpu", "PRECISION=fp32", "WEIGHTS=seeded")
    done = dry_run_copy.make(*asked, f"LABELLED={folder}")
    assert_golden("measure/labelled-seeded", done.stdout.splitlines()[0])
    assert counts(done) == Counts(current=1)
