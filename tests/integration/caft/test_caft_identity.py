"""What a row stands for: the content of an image, of one data set, whatever its name and label."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from support.caft import folder, hiding, identity, outcome, photo, toy
from support.goldens import assert_golden, raises_golden
from support.paths import DATA

from zoo.caft import FeatureCache, cache_features, file_read, stamps, train_head
from zoo.caft.file_read import FileRead
from zoo.caft.files import LOG, sums_of
from zoo.caft.sample import Sample
from zoo.caft.settings import Settings
from zoo.caft.stamps import STAMPS
from zoo.caft.writer import CacheWriter
from zoo.util.errors import CacheError

datasets.disable_progress_bars()


def rows_by_name(path: Path) -> dict[str, tuple[str | None, Any]]:
    """Returns the label and the features of each image of a cache."""
    cache = FeatureCache(path)
    names = [cache.label_names[number] if number >= 0 else None for number in cache.labels]
    return dict(zip(cache.names(), zip(names, cache.plain, strict=True), strict=True))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once, where they are a minute old in the field."""
    monkeypatch.setattr(file_read, "_settled_after", lambda device, folder: -1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is read of files."""
    sizes: list[int] = []
    read = file_read._read

    def counted(file: int, start: int, size: int) -> bytes:
        sizes.append(size)
        return read(file, start, size)

    monkeypatch.setattr(file_read, "_read", counted)
    return sizes


def test_labels_and_lines_of_a_list_are_what_it_says_now(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=2, each=2)
    lists, out = data / "list.csv", tmp_path / "c"
    lists.write_text("class0/0.png,dog\nclass1/0.png,dog\nclass0/1.png,cat\n")
    cache_features(lists, toy(), out)
    lists.write_text("class0/0.png,cat\nclass1/0.png,dog\nclass0/1.png,cat\n")
    _, state = cache_features(lists, toy(), out)
    assert (state.images, state.relabelled, state.gone, state.rewritten) == (0, 1, 0, 0)
    assert {name: label for name, (label, _) in rows_by_name(out).items()} == {
        "class0/0.png": "cat", "class1/0.png": "dog", "class0/1.png": "cat",
    }  # fmt: skip
    assert FeatureCache(out).label_names == ("cat", "dog")
    lists.write_text("class1/1.png,dog\n" + lists.read_text())
    _, state = cache_features(lists, toy(), out)
    assert (state.images, state.found, state.gone) == (1, 3, 0)
    assert not state.reordered
    assert len(FeatureCache(out)) == 4
    lists.write_text("".join(reversed(lists.read_text().splitlines(keepends=True))))
    _, state = cache_features(lists, toy(), out)
    assert (state.images, state.reordered) == (0, True)
    assert next(FeatureCache(out).names()) == "class0/1.png"


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["renamed over", "written in place", "moved away and back"])
def test_a_file_replaced_under_an_older_time_is_run_again(how: str, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "c"
    (data / "a").mkdir(parents=True)
    for number in (1, 2):
        photo(number).save(data / "a" / f"{number}.bmp")  # all of one size
    cache_features(data, toy(), out)
    old = (data / "a" / "1.bmp").stat()
    new = tmp_path / "new.bmp"
    photo(3).save(new)
    if how == "renamed over":
        os.utime(new, ns=(old.st_atime_ns, old.st_mtime_ns))
        new.replace(data / "a" / "1.bmp")
    elif how == "written in place":
        (data / "a" / "1.bmp").write_bytes(new.read_bytes())
        os.utime(data / "a" / "1.bmp", ns=(old.st_atime_ns, old.st_mtime_ns - 10**9))
    else:
        (data / "a" / "1.bmp").rename(tmp_path / "1.bmp")
        shutil.copy2(new, data / "a" / "1.bmp")
        os.utime(data / "a" / "1.bmp", ns=(0, 0))
    _, state = cache_features(data, toy(), out)
    assert (state.images, state.rewritten, state.found) == (1, 1, 1)
    assert np.allclose(rows_by_name(out)["a/1.bmp"][1], toy()(photo(3))[0], atol=1e-6)


def test_only_files_that_have_settled_are_not_read_again(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "data", classes=2, each=3), tmp_path / "c"
    monkeypatch.setattr(file_read, "_settled_after", lambda device, folder: 3600)
    for expected in (6, 6):
        cache_features(data, toy(), out)
        assert len(reads) == expected
        reads.clear()
    monkeypatch.setattr(file_read, "_settled_after", lambda device, folder: -1)
    for expected in (6, 0):
        assert cache_features(data, toy(), out)[1].images in (0, 6)
        assert len(reads) == expected
        reads.clear()
    (out / STAMPS).write_bytes((out / STAMPS).read_bytes()[:200])  # may be lost or cut
    assert cache_features(data, toy(), out)[1].images == 0
    assert len(reads) == 5
    monkeypatch.setattr(file_read, "_settled_after", lambda device, folder: None)  # FAT, FUSE
    reads.clear()
    assert cache_features(data, toy(), out)[1].images == 0
    assert len(reads) == 6


@pytest.mark.usefixtures("settled")
def test_stamps_of_files_that_are_gone_are_dropped(tmp_path: Path) -> None:
    known = stamps.Stamps(tmp_path, writable=True)
    for number in range(4000):
        known.add(number.to_bytes(16, "little"), f"{number:064x}")
    known.close(complete=True)
    known = stamps.Stamps(tmp_path, writable=True)
    for number in range(100):
        assert known.digest(number.to_bytes(16, "little")) == f"{number:064x}"
    known.add((9999).to_bytes(16, "little"), "ab" * 32)
    known.close(complete=True)
    known = stamps.Stamps(tmp_path, writable=True)
    assert known.digest((99).to_bytes(16, "little")) == f"{99:064x}"
    assert known.digest((9999).to_bytes(16, "little")) == "ab" * 32
    assert known.digest((3000).to_bytes(16, "little")) is None
    assert (tmp_path / STAMPS).stat().st_size == 128 + 101 * 48


def test_a_stamp_is_of_a_regular_file_that_did_not_change_while_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_read, "_settled_after", lambda device, folder: -1)
    (tmp_path / "a").write_bytes(b"12345")
    read = FileRead(tmp_path / "a")
    assert (read(), read.stamp) == (b"12345", read.now())
    part = FileRead(tmp_path / "a", 1, 3)
    assert part() == b"234"
    assert part.now() not in (None, read.now())
    plain = file_read._read

    def slow(file: int, start: int, size: int) -> bytes:
        data = plain(file, start, size)
        (tmp_path / "a").write_bytes(b"67890")
        return data

    monkeypatch.setattr(file_read, "_read", slow)
    assert read() == b"12345"
    assert read.stamp is None
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        FileRead(tmp_path / "pipe")()
    assert FileRead(tmp_path / "pipe").now() is None


class Pairs(list[tuple[Image.Image, str]]):
    """A torch data set, as ``random_split`` makes several of one type."""


def pairs(*numbers: int) -> Pairs:
    return Pairs((photo(number), f"c{number % 2}") for number in numbers)


def saved(*numbers: int) -> Any:
    rows = {"image": [photo(number) for number in numbers], "label": [n % 2 for n in numbers]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["c0", "c1"])}
    )
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("made", [pairs, saved])
def test_another_split_is_refused_and_an_edited_one_is_taken(made: Any, tmp_path: Path) -> None:
    out = tmp_path / "c"
    cache_features(made(1, 2, 3, 4), toy(), out)
    before = (out / LOG).read_bytes()
    for moved in (False, True):
        with pytest.raises(CacheError) as raised:
            cache_features(made(5, 6, 7), toy(), out, moved=moved)
        assert_golden(
            f"caft/another_split_{made.__name__}_{moved}", raised.value, {tmp_path: "FOLDER"}
        )
    assert (out / LOG).read_bytes() == before
    assert FeatureCache(out).card.complete
    _, state = cache_features(made(9, 4, 2, 1), toy(), out)
    assert (state.images, state.found) == (1, 3)
    rows = FeatureCache(out)
    expected = toy()([photo(number) for number in (9, 4, 2, 1)])
    assert np.allclose(rows.features, expected, atol=1e-6)
    assert [rows.label_names[number] for number in rows.labels] == ["c1", "c0", "c0", "c1"]


def test_splits_of_a_library_have_names_of_their_own(tmp_path: Path) -> None:
    class Mnist(Pairs):
        def __init__(self, numbers: list[int], train: bool) -> None:
            super().__init__(pairs(*numbers))
            self.train = train

    cache_features(Mnist([1, 2, 3], True), toy(), tmp_path / "c")
    assert FeatureCache(tmp_path / "c").card.source == "Mnist train=True"
    with pytest.raises(CacheError, match="train=False"):  # although it shares an image
        cache_features(Mnist([3, 4], False), toy(), tmp_path / "c")


def test_a_moved_data_set_is_one_with_images_of_the_cache(tmp_path: Path) -> None:
    data, other = folder(tmp_path / "data", classes=2, each=2), tmp_path / "other" / "class0"
    other.mkdir(parents=True)
    photo(77).save(other / "0.png")  # another photo, under a name of the cache
    cache_features(data, toy(), tmp_path / "c")
    with pytest.raises(CacheError) as raised:
        cache_features(other.parent, toy(), tmp_path / "c", moved=True)
    assert_golden("caft/moved_to_another", raised.value, hiding(raised.value, tmp_path))
    shutil.copy(data / "class1" / "1.png", other / "1.png")
    _, state = cache_features(other.parent, toy(), tmp_path / "c", moved=True)
    assert (state.images, state.found, state.renamed, state.gone) == (1, 1, 1, 2)
    assert np.allclose(
        rows_by_name(tmp_path / "c")["class0/0.png"][1], toy()(photo(77))[0], atol=1e-6
    )


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """Caches and their data, written before rows were found by content."""
    shutil.copytree(DATA / "cache_before_contents", tmp_path / "old")
    for card in (tmp_path / "old").glob("of-*/card.json"):
        card.write_text(card.read_text().replace("FOLDER", str(tmp_path / "old")))
    return tmp_path / "old"


@pytest.mark.parametrize(
    ("name", "data", "bad"),
    [("of-folder", "data", 1), ("of-list", "data/list.csv", 0)],
)
def test_caches_of_earlier_versions_are_read_and_continued(
    name: str, data: str, bad: int, before: Path
) -> None:
    old = np.array(FeatureCache(before / name).features)
    _, state = cache_features(before / data, toy(), before / name)
    assert (state.images, state.found, state.gone, state.renamed) == (bad, len(old), 0, 0)
    assert np.array_equal(FeatureCache(before / name).features, old)
    cache_features(before / data, toy(), before / "fresh")
    for file in (LOG, "labels.npy", "hashes.npy"):
        assert (before / name / file).read_bytes() == (before / "fresh" / file).read_bytes()
    fresh = FeatureCache(before / "fresh").features
    assert np.allclose(fresh, old, atol=1e-6)  # another processor rounded them
    assert np.array_equal(np.load(before / name / "sums.npy"), sums_of(old, len(old)))


def test_an_older_cache_of_an_object_is_continued_if_it_shares_images(before: Path) -> None:
    cut = Pairs([(Image.open(before / "data" / "cat" / "a.png").convert("RGB"), "cat")])
    _, state = cache_features(cut, toy(), before / "of-object")
    assert (state.images, state.found, state.gone) == (0, 1, 1)
    with raises_golden(CacheError, "caft/another-data-set"):
        cache_features(pairs(50), toy(), before / "of-object")


@pytest.mark.parametrize("moves", range(6))
def test_a_kill_while_rows_are_arranged_costs_nothing(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "data", classes=2, each=3), tmp_path / "c"
    cache_features(data, toy(), out)
    (data / "class0").rename(data / "class2")
    (data / "class2" / "0.png").unlink()
    moved = []
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.parent.name == ".ready":
            moved.append(self.name)
            if len(moved) > moves:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    if moves < 5:
        with pytest.raises(KeyboardInterrupt):
            cache_features(data, toy(), out)
        monkeypatch.undo()
        for check in (True, False):
            with pytest.raises(CacheError):
                FeatureCache(out, check_complete=check)
    assert cache_features(data, toy(), out)[1].images == 0
    cache_features(data, toy(), tmp_path / "fresh")
    for file in (LOG, "labels.npy", "hashes.npy", "features.npy"):
        assert (out / file).read_bytes() == (tmp_path / "fresh" / file).read_bytes(), file


def test_a_cache_that_may_not_be_written_serves_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "data", classes=2, each=2), tmp_path / "c"
    cache_features(data, toy(), out)
    files = {path: path.read_bytes() for path in out.iterdir()}
    opened, access = os.open, os.access

    def read_only(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        if Path(os.fspath(path)).parent == out and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: path != out and access(path, mode))
    assert cache_features(data, toy(), out)[1].found == 4
    (data / "class0" / "1.png").rename(data / "class1" / "9.png")
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(), out)
    assert_golden("caft/read_only_changed", raised.value, hiding(raised.value, tmp_path))
    photo(50).save(data / "class1" / "8.png")
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(), out)
    assert {path: path.read_bytes() for path in out.iterdir()} == files


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, None])
def test_without_locks_a_second_writer_is_noticed(
    code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, operation: int) -> None:
        if code is not None:  # Lustre's answers yes to everybody
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    rows = np.ones((1, 4), np.float32)
    first = CacheWriter(tmp_path / "c", identity(4))
    first.append([outcome(0, "a")], rows)
    second = CacheWriter(tmp_path / "c", identity(4))
    second.append([outcome(1, "a")], 2 * rows)
    with pytest.raises(CacheError) as raised:
        first.append([outcome(2, "a")], 3 * rows)
    assert_golden("caft/second_writer", raised.value, hiding(raised.value, tmp_path))
    second.close(complete=True)
    assert np.array_equal(FeatureCache(tmp_path / "c").features[:, 0], [1, 2])


@pytest.mark.parametrize("name", ["features.npy", "labels.npy"])
def test_a_head_is_not_trained_on_a_damaged_cache(name: str, tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data", classes=2, each=4), tmp_path / "c"
    cache_features(data, toy(), out, augment=1)
    (data / "class1" / "3.png").rename(data / "class1" / "0a.png")
    cache_features(data, toy(), out, augment=1)  # arranged
    train_head(FeatureCache(out), Settings(epochs=1))
    damaged = bytearray((out / name).read_bytes())
    damaged[-8] ^= 1
    (out / name).write_bytes(damaged)
    with pytest.raises(CacheError) as raised:
        train_head(FeatureCache(out), Settings(epochs=1))
    assert_golden(f"caft/damaged_{name[:-4]}", raised.value, hiding(raised.value, tmp_path))


def test_a_full_disk_is_a_sentence_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "data", classes=2, each=8), tmp_path / "c"
    written, pwrite = [0], os.pwrite

    def full(file: int, piece: Any, offset: int) -> int:
        written[0] += len(piece)
        if written[0] > 1500:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, piece, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(), out, batch=4)
    assert_golden("caft/full_disk", raised.value, hiding(raised.value, tmp_path))
    monkeypatch.undo()
    _, state = cache_features(data, toy(), out, batch=4)
    assert (state.found + state.images, state.found >= 4) == (16, True)
    cache_features(data, toy(), tmp_path / "fresh")
    assert np.allclose(
        FeatureCache(out).features, FeatureCache(tmp_path / "fresh").features, atol=1e-6
    )


def test_a_second_user_continues_a_cache_in_a_folder_of_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are another user's, who lets the group write to the folder alone."""
    monkeypatch.setattr(file_read, "_settled_after", lambda device, folder: -1)
    data, out = folder(tmp_path / "data", classes=2, each=3), tmp_path / "c"
    cache_features(data, toy(), out)
    held = [os.open(path, os.O_RDONLY) for path in out.iterdir()]  # so no inode is used again
    theirs = {os.fstat(file).st_ino for file in held}
    opened = os.open

    def denied(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        file = opened(path, flags & ~os.O_TRUNC, *mode, **more)
        if flags & (os.O_WRONLY | os.O_RDWR) and os.fstat(file).st_ino in theirs:
            os.close(file)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return file

    monkeypatch.setattr(os, "open", denied)
    assert cache_features(data, toy(), out)[1].images == 0
    photo(60).save(data / "class0" / "0a.png")
    (data / "class1" / "0.png").unlink()
    _, state = cache_features(data, toy(), out)
    assert (state.images, state.found, state.gone) == (1, 5, 1)
    monkeypatch.undo()
    for file in held:
        os.close(file)
    cache_features(data, toy(), tmp_path / "fresh")
    assert (out / LOG).read_bytes() == (tmp_path / "fresh" / LOG).read_bytes()


def test_samples_that_share_a_name_are_told_apart_by_content(tmp_path: Path) -> None:
    samples = [Sample(name="a", label=None, read=partial(photo, number)) for number in (1, 2, 1, 3)]
    cache_features(samples, toy(), tmp_path / "c")
    _, state = cache_features(samples, toy(), tmp_path / "c")
    assert (state.images, state.found, state.renamed, state.reordered) == (0, 4, 0, False)
    _, state = cache_features(samples[::-1], toy(), tmp_path / "c")
    assert (state.images, state.found, state.reordered) == (0, 4, True)
