"""Where a cache or a store stands between a digest and a use, damage is noticed before the use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.goldens import raises_golden
from support.records import build_inputs, small_preprocess

from builders.jobs.workspace import Workspace
from builders.photos.calibration import LEAST, from_folder
from builders.photos.labelled import LabelledSet, read_labelled
from zoo.repository.repository import Repository
from zoo.schema.records import Blob, TimingCacheRecord
from zoo.schema.targets import Toolchain
from zoo.stores import LocalStore
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError, UsageError

SMALL = small_preprocess()
CONTENT = b"an ONNX, a golden file, a state or an engine"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(LocalStore(tmp_path / "store"))


@pytest.fixture
def workspace(repository: Repository, tmp_path: Path) -> Workspace:
    (tmp_path / "output").mkdir()
    return Workspace(repository.store.url, tmp_path / "output")


def add(repository: Repository, folder: Path, content: bytes = CONTENT) -> Blob:
    path = folder / "file"
    path.write_bytes(content)
    return repository.blobs.add(path)


def stored_at(repository: Repository, blob: Blob) -> Path:
    path = repository.blobs.path(blob)
    assert path is not None
    return path


def photo(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    picture = Image.fromarray(random.integers(0, 256, (8, 10, 3), np.uint8))
    picture.resize((50, 40)).save(path)


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[::-1]], ids=["truncated", "overwritten"])
def test_a_worker_uses_no_damaged_blob(
    repository: Repository, workspace: Workspace, tmp_path: Path, damaged: bytes
) -> None:
    blob = add(repository, tmp_path)
    assert workspace.blob(blob).read_bytes() == CONTENT
    stored_at(repository, blob).write_bytes(damaged)
    with pytest.raises(RepositoryError, match="damaged") as caught:
        workspace.blob(blob)
    assert caught.value.hint


def test_what_a_worker_downloaded_is_checked_again(workspace: Workspace, tmp_path: Path) -> None:
    blob = add(Repository(LocalStore(tmp_path / "store")), tmp_path)
    kept = workspace.output / "inputs" / blob.sha256
    kept.parent.mkdir()
    kept.write_bytes(CONTENT[::-1])
    assert workspace.blob(blob).read_bytes() == CONTENT


def test_a_build_goes_without_a_damaged_timing_cache(
    repository: Repository,
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toolchain = Toolchain.model_validate(
        {"kind": "trt", "version": "10.9.0", "cuda": 12, "os": "linux", "machine": "x86_64"}
    )
    cache = add(repository, tmp_path)
    repository.put_timing_cache(TimingCacheRecord(device="g", toolchain=toolchain, cache=cache))
    inputs = build_inputs(toolchain=toolchain)
    recording = build_inputs(toolchain=toolchain, options={"tactics": "recorded"})
    assert workspace.timing_cache("g", inputs) is not None
    assert workspace.timing_cache("g", recording) is None
    assert workspace.timing_cache(None, inputs) is None
    stored_at(repository, cache).write_bytes(CONTENT[::-1])
    assert workspace.timing_cache("g", inputs) is None
    assert cache.sha256[:12] in capsys.readouterr().out


def test_a_build_does_not_go_without_its_locked_tactics(
    repository: Repository, workspace: Workspace, tmp_path: Path
) -> None:
    lock = add(repository, tmp_path)
    inputs = build_inputs(options={"tactics": lock.sha256})
    path = workspace.timing_cache(None, inputs)
    assert path is not None
    assert path.read_bytes() == CONTENT
    stored_at(repository, lock).write_bytes(CONTENT[::-1])
    with pytest.raises(RepositoryError, match="damaged"):
        workspace.timing_cache("g", inputs)
    with raises_golden(RepositoryError, "jobs/tactics-missing"):
        workspace.timing_cache("g", build_inputs(options={"tactics": "0" * 64}))


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[::-1]], ids=["truncated", "overwritten"])
def test_storing_a_blob_again_replaces_a_damaged_one(
    repository: Repository, tmp_path: Path, damaged: bytes
) -> None:
    blob = add(repository, tmp_path)
    stored_at(repository, blob).write_bytes(damaged)
    assert add(repository, tmp_path) == blob
    assert stored_at(repository, blob).read_bytes() == CONTENT


def test_calibration_photos_that_were_changed_are_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for number in range(LEAST):
        photo(folder / f"{number:02}.png", number)
    images = from_folder(folder, print)
    images.pixels(SMALL)
    photo(folder / "07.png", 99)
    with pytest.raises(UsageError, match=r"07\.png") as caught:
        images.pixels(SMALL)
    assert caught.value.hint
    (folder / "07.png").unlink()
    with pytest.raises(UsageError, match=r"07\.png"):
        images.pixels(SMALL)


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledSet:
    for number in range(12):
        photo(tmp_path / "classes" / "ab"[number % 2] / f"{number:02}.png", number)
    return read_labelled(tmp_path / "classes", print)


def test_labelled_photos_that_were_changed_are_not_used(labelled: LabelledSet) -> None:
    assert len(labelled.pixels(SMALL)) == len(labelled.opened().photos) == 12
    photo(labelled.paths[3], 99)
    for use in (lambda: labelled.pixels(SMALL), labelled.opened):
        with raises_golden(UsageError, "photos/labelled-changed"):
            use()


def test_labelled_photos_that_changed_places_are_not_used(labelled: LabelledSet) -> None:
    """The same files, but under each other's label."""
    first, other = labelled.paths[0], labelled.paths[-1]
    assert labelled.labels[0] != labelled.labels[-1]
    kept = first.with_suffix(".kept")
    shutil.move(first, kept)
    shutil.move(other, first)
    shutil.move(kept, other)
    with raises_golden(UsageError, "photos/labelled-changed"):
        labelled.pixels(SMALL)


def test_a_missing_labelled_photo_is_named(labelled: LabelledSet) -> None:
    labelled.paths[2].unlink()
    with pytest.raises(UsageError, match=labelled.paths[2].name):
        labelled.opened()


def test_the_digest_of_labelled_photos_is_what_it_was(labelled: LabelledSet) -> None:
    """Verdicts in published records name it."""
    from zoo.util.digest import sha256_json

    pairs = sorted(zip(map(sha256_file, labelled.paths), labelled.labels, strict=True))
    assert labelled.sha256 == sha256_json(pairs)
