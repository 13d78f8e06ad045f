"""Where images come from: whatever the data set looks like, the same photos give the same rows."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import PREPROCESS, folder, hiding, photo, toy
from support.goldens import assert_golden, raises_golden
from support.records import small_preprocess

from zoo.caft import FeatureCache, cache_features
from zoo.caft.augment import Augmentation
from zoo.caft.decode import host_decoder
from zoo.caft.decode_process import DecodeProcess
from zoo.caft.notes import notes_of
from zoo.caft.room import Room
from zoo.caft.sample import Sample
from zoo.caft.sources import open_source
from zoo.caft.tar_files import expand
from zoo.inference.preprocess import batch_of, fit, open_photo
from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_bytes
from zoo.util.errors import DatasetError, RunError
from zoo.util.faults import MachineError


def as_list(data: Path, path: Path) -> Path:
    lines = [f"{file.relative_to(data)},{file.parent.name}" for file in sorted(data.rglob("*.png"))]
    (data / "list.csv").write_text("path,label\n# a note\n\n" + "\n".join(lines) + "\n")
    return data / "list.csv"


def as_tar(data: Path, path: Path) -> str:
    """Two shards: in one the label is a .cls, in the other it is in a .json."""
    files = sorted(data.rglob("*.png"))
    for shard, part in enumerate((files[: len(files) // 2], files[len(files) // 2 :])):
        with tarfile.open(path / f"s-{shard:02d}.tar", "w") as tar:
            for number, file in enumerate(part):
                label = file.parent.name
                given = {
                    "cls": label.encode(), "json": json.dumps({"label": label}).encode()
                }  # fmt: skip
                kind = ("cls", "json")[shard]
                for extension, content in ((kind, given[kind]), ("png", file.read_bytes())):
                    member = tarfile.TarInfo(f"{number:03d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return str(path / "s-{00..01}.tar")


def as_hugging_face(data: Path, path: Path) -> str:
    import datasets

    files = sorted(data.rglob("*.png"))
    names = sorted({file.parent.name for file in files})
    features = datasets.Features(
        {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=names)}
    )
    made = datasets.Dataset.from_dict(
        {"photo": [str(file) for file in files], "kind": [file.parent.name for file in files]},
        features=features,
    )
    datasets.DatasetDict({"train": made}).save_to_disk(str(path / "hf"))
    return f"hf:{path / 'hf'}:train"


class Torch:
    """A torch ``Dataset``, as torchvision's are."""

    def __init__(self, data: Path) -> None:
        self.files = sorted(data.rglob("*.png"))
        self.classes = sorted({file.parent.name for file in self.files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file = self.files[index]
        return open_photo(file), self.classes.index(file.parent.name)


def as_torch(data: Path, path: Path) -> Torch:
    return Torch(data)


@pytest.mark.parametrize("form", [as_list, as_tar, as_hugging_face, as_torch])
def test_every_form_of_a_data_set_gives_the_same_rows(form: Any, tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    cache_features(data, toy(), tmp_path / "plain")
    cache_features(form(data, tmp_path), toy(), tmp_path / "other")
    plain, other = FeatureCache(tmp_path / "plain"), FeatureCache(tmp_path / "other")
    assert np.array_equal(plain.features, other.features)
    assert np.array_equal(plain.labels, other.labels)
    assert plain.label_names == other.label_names == ("class0", "class1", "class2")


def test_bad_images_are_left_out_by_name(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    (data / "class0" / "2b.jpg").write_bytes(b"no photo")
    (data / "class1" / "cut.png").write_bytes((data / "class1" / "0.png").read_bytes()[:200])
    (data / "class2" / "gone.jpg").symlink_to(data / "nowhere.jpg")
    said = {}
    card, _ = cache_features(data, toy(), tmp_path / "c", on_bad=said.__setitem__)
    assert set(said) == {"class0/2b.jpg", "class1/cut.png", "class2/gone.jpg"}
    assert "unknown format" in said["class0/2b.jpg"]
    assert "No such file" in said["class2/gone.jpg"]
    assert (card.samples, card.bad) == (15, 3)
    cache = FeatureCache(tmp_path / "c")
    assert dict(cache.bad()) == said
    assert len(list(cache.names())) == len(cache) == 15
    expected = toy()(sorted(str(path) for path in data.rglob("?.png")))
    assert np.allclose(cache.features, expected, atol=1e-6)
    # Another pass tries them again, and names those that are still bad.
    (data / "class0" / "2b.jpg").write_bytes((data / "class1" / "0.png").read_bytes())
    said.clear()
    card, state = cache_features(data, toy(), tmp_path / "c", on_bad=said.__setitem__)
    assert set(said) == {"class1/cut.png", "class2/gone.jpg"}
    assert (card.samples, card.bad, state.images, state.renamed) == (16, 2, 2, 0)
    assert dict(FeatureCache(tmp_path / "c").bad()) == said


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch", [1, 7])
def test_views_do_not_depend_on_batches_or_threads(
    workers: int, batch: int, tmp_path: Path
) -> None:
    data = folder(tmp_path / "data")
    for name, options in (("a", {"batch": 16, "workers": 2}), ("b", {"batch": batch * 4})):
        options |= {"workers": workers} if name == "b" else {}
        cache_features(data, toy(), tmp_path / name, augment=3, seed=5, **options)  # type: ignore[arg-type]
    one, two = FeatureCache(tmp_path / "a"), FeatureCache(tmp_path / "b")
    assert np.allclose(one.features, two.features, atol=1e-6)
    views = np.asarray(one.features).reshape(15, 4, 8)
    for first in range(4):
        for second in range(first):
            assert np.abs(views[:, first] - views[:, second]).max() > 1e-4
    assert np.allclose(views[:, 0], toy()(sorted(data.rglob("*.png"))), atol=1e-6)


def test_another_seed_gives_other_views() -> None:
    image, digest = photo(1, (300, 200)), "ab" * 32
    views = [Augmentation(count=1, seed=seed).view(image, 1, digest) for seed in (0, 0, 1)]
    assert views[0].tobytes() == views[1].tobytes() != views[2].tobytes()


@pytest.mark.parametrize("cut", ["in a photo", "in a header", "between two files"])
def test_what_came_before_a_broken_end_is_kept(cut: str, tmp_path: Path) -> None:
    as_tar(folder(tmp_path / "data"), tmp_path)
    path = tmp_path / "s-00.tar"
    with tarfile.open(path) as tar:
        header = tar.getmember("003.cls").offset
    at = header + {"in a photo": -700, "in a header": 100, "between two files": 0}[cut]
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(DatasetError) as raised:
        cache_features(str(path), toy(), tmp_path / "c", batch=1)
    assert_golden(f"caft/tar_{cut.replace(' ', '_')}", raised.value, hiding(raised.value, tmp_path))
    kept = FeatureCache(tmp_path / "c", check_complete=False).card.samples
    assert kept == 2  # a sample ends where the next begins: the third may lack something


class Endless:
    """A source that has more than anybody takes."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self) -> Any:
        while True:
            self.asked += 1
            yield Sample(name=str(self.asked), label=None, read=lambda: photo(1))


def test_the_decoder_runs_ahead_by_a_few_batches_and_stops_when_asked() -> None:
    source = Endless()
    batches = host_decoder(PREPROCESS, Augmentation(), samples=2, workers=2).batches(source)
    first = next(batches)
    assert np.allclose(first.images, batch_of([photo(1)] * 2, PREPROCESS), atol=1e-6)
    next(batches)
    batches.close()
    assert source.asked <= 12


def test_samples_that_are_handed_out_together_keep_their_places() -> None:
    def source() -> Any:
        for number in range(63):
            yield Sample(name=str(number), label=None, read=lambda n=number: photo(n))
        raise DatasetError("the disk is gone")

    decoder = host_decoder(PREPROCESS, Augmentation(), samples=40, workers=2)  # five at once
    found: list[str] = []

    def look() -> None:
        for batch in decoder.batches(source()):
            photos = [photo(len(found) + place) for place in range(len(batch.outcomes))]
            assert np.allclose(batch.images, batch_of(photos, PREPROCESS), atol=1e-6)
            found.extend(one.sample.name for one in batch.outcomes)

    with pytest.raises(DatasetError, match="the disk is gone"):
        look()
    assert found == [str(number) for number in range(63)]


def decoded(
    data: Path, *, processes: bool, preprocess: Preprocess = PREPROCESS
) -> tuple[Any, list[tuple[str, str, str | None]]]:
    """Returns the input of all images of a folder, and what became of each."""
    decoder = host_decoder(
        preprocess, Augmentation(count=1), samples=4, workers=3, processes=processes
    )
    images, outcomes = [], []
    for batch in decoder.batches(open_source(data)):
        images.append(batch.images.copy())
        outcomes += [(one.sample.name, one.sha256, one.error) for one in batch.outcomes]
    return np.concatenate(images), outcomes


def test_processes_decode_as_threads_do(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    (data / "class0" / "2b.jpg").write_bytes(b"no photo")
    (data / "class1" / "cut.png").write_bytes((data / "class1" / "0.png").read_bytes()[:200])
    threads, processes = (decoded(data, processes=many) for many in (False, True))
    assert np.array_equal(threads[0], processes[0])
    assert threads[1] == processes[1]


def test_processes_decode_to_a_size_that_is_no_square(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    tall = small_preprocess(input_size=(48, 32), crop_mode="border", crop=1.0)
    threads, processes = (decoded(data, processes=p, preprocess=tall)[0] for p in (False, True))
    assert threads.shape[1:] == (3, 48, 32)
    assert np.array_equal(threads, processes)


def test_a_process_that_is_killed_is_replaced_and_says_so() -> None:
    file = io.BytesIO()
    photo(1).save(file, "PNG")
    good = file.getvalue()
    process, room = DecodeProcess(PREPROCESS, Augmentation()), Room()
    try:
        digest = process.decode(good, room)
        child = process._process
        assert child is not None
        child.kill()
        child.wait()
        with raises_golden(MachineError, "caft/decoding_process_killed"):
            process.decode(good, room)
        assert process.decode(good, room) == digest == sha256_bytes(good)
        assert np.array_equal(process.pixels[0], fit(photo(1), PREPROCESS))
    finally:
        process.close()


def test_processes_that_do_not_start_are_an_error_and_no_bad_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError) as raised:
        decoded(folder(tmp_path / "data"), processes=True)
    assert_golden("caft/decoding_process_no_start", raised.value)


BAD = {
    "missing": "nowhere",
    "missing_tar": "nowhere.tar",
    "missing_list": "nowhere.csv",
    "blank_list": "blank.csv",
    "url": "https://example.org/a.tar",
    "pipe": "pipe:cat a.tar",
    "empty": "empty",
    "photo": "empty/photo.jpg",
    "fields": "many.csv",
    "not_utf8": "latin.txt",
    "comma": "commas.txt",
    "not_a_tar": "note.tar",
    "hub": "hf:nowhere/at/all:train",
}


@pytest.mark.parametrize(("what", "name"), BAD.items())
def test_what_is_no_data_set_is_said(
    what: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    photo(1).save(tmp_path / "empty" / "photo.jpg")
    (tmp_path / "many.csv").write_text("path,label\na,b,c\n")
    (tmp_path / "commas.txt").write_text("a.jpg,cat\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.jpg\n")
    (tmp_path / "note.tar").write_text("hello" * 1000)
    (tmp_path / "blank.csv").write_text("\n")
    data = name if ":" in name else str(tmp_path / name)
    if name == "empty":
        (tmp_path / "empty" / "photo.jpg").unlink()
    with pytest.raises(DatasetError) as raised:
        cache_features(data, toy(), tmp_path / "c")
    assert raised.value.hint
    assert_golden(f"caft/no_data_set_{what}", raised.value, hiding(raised.value, tmp_path))
    assert not (tmp_path / "c").exists()


def test_a_list_of_a_spreadsheet_and_a_folder_in_a_circle(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=2, each=2)
    (data / "class0" / "again").symlink_to(data)
    assert len(list(open_source(data))) == 4
    (data / "list.csv").write_text("path,label\nclass0/0.png,a\n", encoding="utf-8-sig")
    assert [(one.name, one.label) for one in open_source(data / "list.csv")] == [
        ("class0/0.png", "a")
    ]


def test_names_in_another_encoding_are_taken(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=1, each=1)
    odd = os.fsdecode(os.fsencode(tmp_path / "data") + b"/caf\xe9")
    shutil.copytree(data / "class0", odd)
    card, _ = cache_features(data, toy(), tmp_path / "c")
    assert (card.samples, card.labels) == (2, ("caf\\xe9", "class0"))


def test_a_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as raised:
        open_source(iter([photo(1)]))
    assert_golden("caft/iterator", raised.value)
    with pytest.raises(DatasetError) as raised:
        open_source(3)
    assert_golden("caft/no_data_set_number", raised.value)


def test_shards_are_named_by_a_range() -> None:
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand("{0..1}-{3..3}.tar") == ["0-3.tar", "1-3.tar"]
    assert expand("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize(("split", "told"), [(None, 1), ("train", 0)])
def test_other_splits_of_a_data_set_on_the_hub_are_named(
    split: str | None, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    splits = {name: {"name": name, "num_examples": 1} for name in ("train", "test")}
    served = datasets.Dataset.from_dict(
        {"image": [photo(1)]},
        features=features,
        info=datasets.DatasetInfo(features=features, splits=splits),
        split=datasets.Split.TRAIN,
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: served)
    source = open_source("hf:somebody/birds", split=split)
    assert len(list(source)) == 1
    notes = notes_of(source)
    assert len(notes) == told
    assert all("test" in note for note in notes)
