"""Pipes, devices, sockets and huge sparse files in data sets: refused before anything is read."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.caft import folder, photo, toy
from support.goldens import raises_golden

from builders.photos.calibration import from_folder
from builders.photos.labelled import read_labelled
from zoo.caft import FeatureCache, cache_features
from zoo.caft.head import Head
from zoo.caft.sources import open_source
from zoo.caft.targets_file import read_targets
from zoo.caft.task import Task
from zoo.inference import preprocess
from zoo.inference.gpu import preparer as preparing
from zoo.inference.gpu.jpeg import JpegFile, JpegSize
from zoo.inference.preprocess import open_photo
from zoo.util import faults
from zoo.util.errors import CacheError, DatasetError, HeadError, RunError, UsageError
from zoo.util.faults import MachineError

SPECIAL = ("pipe.png", "zero.png", "socket.png", "sparse.png")
_GIGABYTES = 8 << 30


@pytest.fixture
def special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo, and what looks like one by its name."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.chdir(data)  # a socket's path must be short
    photo(1).save(data / "a.png")
    os.mkfifo(data / "pipe.png")
    (data / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
    with (data / "sparse.png").open("wb") as file:
        file.truncate(_GIGABYTES)
    return data


def test_special_files_in_a_folder_and_a_list_are_left_out(special: Path, tmp_path: Path) -> None:
    bad: list[str] = []
    card, _ = cache_features(
        special, toy(), tmp_path / "c", on_bad=lambda name, reason: bad.append(name)
    )
    assert (card.samples, sorted(bad)) == (1, sorted(SPECIAL))
    (tmp_path / "l.csv").write_text(
        "".join(f"data/{name}\n" for name in (*SPECIAL, "a.png")) + "/dev/zero\n"
    )
    card, _ = cache_features(tmp_path / "l.csv", toy(), tmp_path / "d")
    assert (card.samples, card.bad) == (1, len(SPECIAL) + 1)


@pytest.mark.parametrize("name", [*SPECIAL, "/dev/zero"])
def test_a_single_special_file_is_no_photo(name: str, special: Path) -> None:
    with pytest.raises(RunError):
        open_photo(special / name)
    with toy() as extractor, pytest.raises(RunError):
        extractor(special / name)


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".tar", ""])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_data_set(suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DatasetError):
        list(open_source(path))


def test_a_list_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "zeros.txt").open("wb") as file:
        file.truncate(_GIGABYTES)
    with raises_golden(DatasetError, "caft/list-with-an-endless-line", {tmp_path: "FOLDER"}):
        list(open_source(tmp_path / "zeros.txt"))


def sparse_tar(path: Path, member: tarfile.TarInfo) -> Path:
    """A tar with a photo, and then a member of zeros that takes no space."""
    file = io.BytesIO()
    photo(1).save(file, "PNG")
    with tarfile.open(path, "w") as tar:
        small = tarfile.TarInfo("a.png")
        small.size = len(file.getvalue())
        tar.addfile(small, io.BytesIO(file.getvalue()))
        end = tar.offset
    with path.open("r+b") as out:
        out.truncate(end)
        out.seek(end)
        out.write(member.tobuf())
        out.truncate(out.tell() + member.size)
        out.seek(0, os.SEEK_END)
        out.write(bytes(10240))
    return path


def test_a_sparse_member_of_a_tar_is_left_out(tmp_path: Path) -> None:
    member = tarfile.TarInfo("big.png")
    member.size = _GIGABYTES
    path = sparse_tar(tmp_path / "s.tar", member)
    card, _ = cache_features(path, toy(), tmp_path / "c")
    assert (card.samples, card.bad) == (1, 1)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_gigabytes_is_not_read(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, 7 << 30  # what fits in a header's field
    path = sparse_tar(tmp_path / "s.tar", member)
    with pytest.raises(DatasetError, match="7,516,192,768"):
        list(open_source(path))


def test_files_of_caches_and_heads_may_be_no_pipes(tmp_path: Path) -> None:
    cache_features(folder(tmp_path / "data"), toy(), tmp_path / "c")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HeadError):
        Head.load(tmp_path / "pipe")
    with pytest.raises(DatasetError):
        read_targets(tmp_path / "pipe", FeatureCache(tmp_path / "c"), Task.REGRESSION)
    (tmp_path / "c" / "card.json").unlink()
    os.mkfifo(tmp_path / "c" / "card.json")
    with pytest.raises(CacheError):
        FeatureCache(tmp_path / "c")


def test_the_farms_photos_may_be_special_or_out_of_reach(
    special: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "PAUSES", (0.0, 0.0))
    told: list[str] = []
    (special / "class").mkdir()
    photo(2).save(special / "class" / "b.png")
    for read in (from_folder, read_labelled):
        with pytest.raises(UsageError):  # too few, but it ends
            read(special, told.append)  # type: ignore[operator]
    assert any("pipe.png" in text for text in told)

    def fail(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(preprocess, "as_rgb", fail)
    for read in (from_folder, read_labelled):
        with pytest.raises(MachineError):
            read(special, told.append)  # type: ignore[operator]


def test_what_the_gpu_leaves_to_pillow_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PAUSES", (0.0, 0.0))
    file = io.BytesIO()
    photo(1).save(file, "JPEG")
    jpeg = JpegFile(file.getvalue(), JpegSize(48, 40))
    image = preparing.Photo(source=jpeg, row=0)
    preparer: Any = object.__new__(preparing.Preparer)
    preparer.decoder = None
    failed: dict[int, str] = {}
    with monkeypatch.context() as patched:
        faulty = iter([MemoryError(), MemoryError(), None])
        patched.setattr(preparing, "open_photo", lambda stream: opened(stream, next(faulty)))
        assert len(preparer._decode([image], range(1), failed)[1]) == 1
        patched.setattr(preparing, "open_photo", lambda stream: opened(stream, MemoryError()))
        with pytest.raises(MachineError):
            preparer._decode([image], range(1), failed)
    assert failed == {}


def opened(stream: io.BytesIO, fault: Exception | None) -> Image.Image:
    if fault is not None:
        raise fault
    return open_photo(stream)
