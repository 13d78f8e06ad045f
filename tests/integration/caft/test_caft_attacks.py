"""Odd and hostile data sets and caches: a sentence, or the right rows."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from support.caft import clusters, folder, photo, toy, write_cache
from support.goldens import raises_golden

from zoo.caft import FeatureCache, cache_features
from zoo.caft.labels import LabelError
from zoo.caft.sources import open_source
from zoo.caft.train import train_head
from zoo.util.errors import CacheError, DatasetError
from zoo.util.faults import MachineError

datasets.disable_progress_bars()


def png(number: int) -> bytes:
    file = io.BytesIO()
    photo(number).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


class Items(list[Any]):
    """A torch data set."""


def table(numbers: list[int], bad: int | None = None) -> datasets.Dataset:
    rows = [{"bytes": b"junk" if n == bad else png(n), "path": None} for n in numbers]
    features = datasets.Features({"image": datasets.Image(), "species": datasets.Value("string")})
    return datasets.Dataset.from_dict(
        {"image": rows, "species": [str(n % 2) for n in numbers]}, features=features
    )


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a folder that this user may not write to, also if the user is root."""
    opened, access = os.open, os.access

    def make(out: Path) -> None:
        def denied(path: Any, flags: int, *mode: Any, **more: Any) -> int:
            writes = flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT)
            if Path(os.fspath(path)).parent == out and writes:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return opened(path, flags, *mode, **more)

        monkeypatch.setattr(os, "open", denied)
        monkeypatch.setattr(os, "access", lambda path, mode: path != out and access(path, mode))

    return make


@pytest.mark.parametrize("place", ["class0/0.png", "class0/3a.png", "class1/9.png"])
def test_a_read_only_cache_without_a_bad_photo_works(
    place: str, tmp_path: Path, read_only: Any
) -> None:
    data, out = folder(tmp_path / "data", classes=2), tmp_path / "c"
    (data / place).write_bytes(b"no photo")
    cache_features(data, toy(), out)
    files = {path: path.read_bytes() for path in out.iterdir()}
    read_only(out)
    card, state = cache_features(data, toy(), out, batch=2)
    assert (card.bad, state.bad, state.found) == (1, 1, card.samples)
    photo(70).save(data / place)  # usable now, and there is no place for its row
    with pytest.raises(CacheError, match=re.escape(place)):
        cache_features(data, toy(), out)
    assert {path: path.read_bytes() for path in out.iterdir()} == files


@pytest.mark.parametrize("count", [2, 3])
def test_archives_appended_to_a_tar_are_read_and_counted(count: int, tmp_path: Path) -> None:
    parts = [
        tar(tmp_path / f"{n}.tar", {f"{n}.png": png(n), f"{n}.cls": b"%d" % n}).read_bytes()
        for n in range(count)
    ]
    (tmp_path / "all.tar").write_bytes(b"".join(parts))
    card, state = cache_features(tmp_path / "all.tar", toy(), tmp_path / "c")
    assert (card.samples, card.labels) == (count, tuple(map(str, range(count))))
    assert any(f"{count - 1} (1.png" in note for note in state.notes)
    expected = toy()([photo(n) for n in range(count)])
    assert np.allclose(FeatureCache(tmp_path / "c").features, expected, atol=1e-6)
    (tmp_path / "all.tar").write_bytes(parts[0] + b"no tar at all" * 100)
    with raises_golden(DatasetError, "caft/end-marker"):
        cache_features(tmp_path / "all.tar", toy(), tmp_path / "d")


@pytest.mark.parametrize("kind", ["tar", "list", "table", "items"])
def test_texts_of_floats_are_refused_or_left_out(kind: str, tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text("a.png,0.5\n")
    data: Any = {
        "tar": tar(tmp_path / "t.tar", {"a.png": png(1), "a.cls": b"0.5"}),
        "list": tmp_path / "l.csv",
        "table": datasets.Dataset.from_dict(
            {"image": [{"bytes": png(1), "path": None}], "label": ["0.5"]},
            features=datasets.Features(
                {"image": datasets.Image(), "label": datasets.Value("string")}
            ),
        ),
        "items": Items([(photo(1), "0.5")]),
    }[kind]
    with pytest.raises(LabelError) as raised:
        cache_features(data, toy(), tmp_path / "c")
    assert "label=False" in str(raised.value.hint)
    card, state = cache_features(data, toy(), tmp_path / "d", label=False)
    assert (card.samples, card.labels, state.unlabelled) == (1, (), 1)


@pytest.mark.parametrize("made", [lambda n: Items(photo(x) for x in n), lambda n: table(list(n))])
def test_a_set_that_shares_a_photo_is_another_one(made: Any, tmp_path: Path) -> None:
    out = tmp_path / "c"
    cache_features(made(range(10)), toy(), out)
    before = FeatureCache(out).card.fingerprint
    for moved in (False, True):
        with pytest.raises(CacheError, match=re.escape(str(out))):
            cache_features(made(range(9, 20)), toy(), out, moved=moved)
    with pytest.raises(CacheError) as raised:  # it lost most of its images, or is a part of them
        cache_features(made(range(3)), toy(), out)
    assert "moved=True" in str(raised.value.hint)
    assert FeatureCache(out).card.fingerprint == before
    assert cache_features(made(range(100)), toy(), out)[1].images == 90
    assert cache_features(made(range(3)), toy(), out, moved=True)[0].samples == 3


def test_a_folder_where_nearly_all_was_replaced_goes_on(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data", classes=2), tmp_path / "c"
    cache_features(data, toy(), out)
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        photo(500 + number).save(path)
    assert cache_features(data, toy(), out)[1].rewritten == 10
    data.rename(tmp_path / "moved")
    assert cache_features(tmp_path / "moved", toy(), out, moved=True)[1].found == 10


def test_a_table_whose_first_row_is_bad_is_continued(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(state: Any) -> None:
        raise Stop

    data = table(list(range(200)), bad=0)
    with pytest.raises(Stop):
        cache_features(data, toy(), tmp_path / "c", batch=4, on_progress=stop)
    card, _ = cache_features(data, toy(), tmp_path / "c")
    assert (card.samples, card.bad) == (199, 1)


class Failing:
    """A torch data set with an item that can't be loaded."""

    def __init__(self, index: int, error: Exception) -> None:
        self.index, self.error = index, error

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        if index == self.index:
            raise self.error
        return photo(index), index


@pytest.mark.parametrize("index", [0, 3])
def test_an_item_that_fails_is_left_out_and_named(index: int, tmp_path: Path) -> None:
    bad: list[tuple[str, str]] = []
    for error in (ValueError("boom"), KeyError(7), OSError(errno.ENOENT, "no such file")):
        bad.clear()
        card, _ = cache_features(
            Failing(index, error), toy(), tmp_path / "c", on_bad=lambda *what: bad.append(what)
        )
        assert (card.samples, card.bad) == (3, 1)
        assert [name for name, _ in bad] == [f"{index:09d}"]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.EMFILE, "many"), OSError(errno.EIO, "io")]
)
def test_faults_of_the_machine_stop_the_pass(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as raised:
        cache_features(Failing(2, error), toy(), tmp_path / "c", batch=1, workers=1)
    assert "000000002" in raised.value.message
    card, state = cache_features(Failing(-1, error), toy(), tmp_path / "c")
    assert (card.samples, card.bad, state.found >= 1) == (4, 0, True)


def test_mappings_have_an_image_and_a_label(tmp_path: Path) -> None:
    data = Items([{"image": photo(1), "label": "a"}, {"image": photo(2), "target": "b"}, {"x": 1}])
    card, _ = cache_features(data, toy(), tmp_path / "c")
    assert (card.samples, card.bad, card.labels) == (2, 1, ("a", "b"))


@pytest.mark.parametrize("data", [{"a": 1}, {1, 2}, iter([]), None, 3])
def test_objects_that_are_no_data_sets_are_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        cache_features(data, toy(), tmp_path / "c")


@pytest.mark.parametrize("name", ["features.npy", "labels.npy", "hashes.npy", "sums.npy"])
@pytest.mark.parametrize("at", [0, 3, 6, 20, 60])
def test_a_damaged_header_is_said(name: str, at: int, tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data", classes=2), tmp_path / "c"
    cache_features(data, toy(), out)
    header = bytearray((out / name).read_bytes())
    header[at : at + 4] = b"\xff\xff\xff\xff"
    (out / name).write_bytes(header)
    with pytest.raises(CacheError, match=name):
        cache_features(data, toy(), out)


def test_a_cache_without_its_log_is_refused(tmp_path: Path) -> None:
    cache_features(folder(tmp_path / "data"), toy(), tmp_path / "c")
    (tmp_path / "c" / "samples.jsonl").unlink()
    with pytest.raises(CacheError, match=r"samples\.jsonl"):
        FeatureCache(tmp_path / "c")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "a.png;cat\n"), ("l.txt", "a.png 3\n"), ("l.csv", "a.png\tcat\n"),
        ("l.csv", "label,path\ncat,a.png\n"), ("l.txt", "x" * 200_000), ("l.csv", "a.png,[1]\n"),
    ],
)  # fmt: skip
def test_a_list_of_another_form_is_refused(name: str, text: str, tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=name):
        list(open_source(tmp_path / name))


@pytest.mark.parametrize("heading", ["filename,label", "img_path,class", "Path,Label", "a,label"])
def test_a_heading_is_no_photo(heading: str, tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text(f"{heading}\na.png,cat\n")
    assert [sample.label for sample in open_source(tmp_path / "l.csv")] == ["cat"]


def test_a_very_long_name_in_a_list_is_one_bad_photo(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "l.txt").write_text("a.png\n" + "x" * 5000 + ",cat\n")
    card, _ = cache_features(tmp_path / "l.txt", toy(), tmp_path / "c")
    assert (card.samples, card.bad) == (1, 1)


def test_fields_that_no_sample_has_are_refused(tmp_path: Path) -> None:
    nested = b'{"meta": {"kind": "ox"}}'
    path = tar(tmp_path / "t.tar", {"a.png": png(1), "a.cls": b"cat", "b.png": png(2),
                                    "b.json": nested})  # fmt: skip
    for options in ({"label": "species"}, {"label": "json.kind"}, {"image": "jpg"}):
        with pytest.raises(DatasetError) as raised:
            cache_features(path, toy(), tmp_path / "c", **options)  # type: ignore[arg-type]
        assert raised.value.hint
    assert not (tmp_path / "c").exists()
    card, _ = cache_features(path, toy(), tmp_path / "c", label="json.meta.kind")
    assert card.labels == ("ox",)


def test_a_tar_is_one_by_content_and_says_what_it_ignored(tmp_path: Path) -> None:
    path = tar(tmp_path / "shard0", {"a.png": png(1), "b": png(2)})
    _, state = cache_features(path, toy(), tmp_path / "c")
    assert any(": 1 (b)" in note for note in state.notes)
    with raises_golden(DatasetError, "caft/without-a-suffix-1-b"):
        cache_features(tar(tmp_path / "t.tar", {"b": png(2)}), toy(), tmp_path / "d")
    (tmp_path / "z.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"0" * 50)
    with pytest.raises(DatasetError, match="zstd"):
        open_source(tmp_path / "z.tar.zst")


def test_columns_that_may_be_labels_are_suggested(tmp_path: Path) -> None:
    _, state = cache_features(table([1, 2]), toy(), tmp_path / "c")
    assert any("--label-column" in note and "species" in note for note in state.notes)


def test_an_empty_name_is_not_this_folder() -> None:
    with pytest.raises(DatasetError, match="empty"):
        open_source("")


def test_arrays_of_every_kind_are_as_their_files(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    arrays = [
        random.integers(0, 65536, (20, 24)).astype(np.uint16),
        random.integers(0, 256, (20, 24)).astype(np.uint8),
        random.integers(0, 256, (20, 24, 4)).astype(np.uint8),
        random.integers(0, 256, (20, 24, 3)).astype(np.uint8),
    ]
    for number, array in enumerate(arrays):
        (tmp_path / "d").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "d" / f"{number}.png")
    arrays.append(arrays[1][..., None])
    cache_features(tmp_path / "d", toy(), tmp_path / "a")
    card, _ = cache_features(Items(arrays), toy(), tmp_path / "b")
    assert card.samples == 5
    files, given = FeatureCache(tmp_path / "a").features, FeatureCache(tmp_path / "b").features
    assert np.allclose(given[:4], files, atol=1e-6)
    assert np.allclose(given[4], files[1], atol=1e-6)


@pytest.mark.parametrize("names", [[], ["class0"]])
def test_a_card_that_does_not_name_all_classes_is_damaged(names: list[str], tmp_path: Path) -> None:
    features, labels = clusters(classes=2, each=8)
    cache = write_cache(tmp_path / "c", features, labels)
    card = json.loads((cache / "card.json").read_text())
    (cache / "card.json").write_text(json.dumps({**card, "labels": names}))
    for use in (FeatureCache.labelled, train_head):
        with raises_golden(CacheError, "caft/card-lacks-a-class", {tmp_path: "TMP"}):
            use(FeatureCache(cache))
