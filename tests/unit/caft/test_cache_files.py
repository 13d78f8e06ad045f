"""The files of a cache: what is appended, and what a killed pass left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from support.caft import identity

from zoo.caft import cache_files
from zoo.caft.cache_files import CacheFiles
from zoo.caft.files import FEATURES, LABELS, LOG, SUMS, all_finite
from zoo.caft.growing import GrowingArray
from zoo.util.errors import CacheError

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def append(files: CacheFiles, lines: bytes = b"{}\n{}\n") -> None:
    with files.writing(ROWS):
        pass
    hashes = np.zeros((2, 32), np.uint8)
    files.append(np.array([0, 1], np.int64), hashes, np.array([7, 8], np.uint32), lines)


@pytest.fixture
def files(tmp_path: Path) -> CacheFiles:
    files = CacheFiles(tmp_path, identity(4), 0)
    files.open(0)
    return files


def test_a_batch_is_in_all_files(files: CacheFiles, tmp_path: Path) -> None:
    append(files)
    append(files, b"{}\n")
    files.close(sync=True)
    assert not files.are_open
    assert np.array_equal(np.load(tmp_path / FEATURES), np.concatenate([ROWS, ROWS]))
    assert np.load(tmp_path / LABELS).tolist() == [0, 1, 0, 1]
    assert np.load(tmp_path / SUMS).tolist() == [7, 8, 7, 8]
    assert (tmp_path / LOG).read_bytes() == b"{}\n" * 3


def test_what_a_killed_pass_left_is_cut_off(files: CacheFiles, tmp_path: Path) -> None:
    append(files)
    files.close(sync=False)
    again = CacheFiles(tmp_path, identity(4), 3)
    again.open(1)
    again.close(sync=False)
    assert np.array_equal(np.load(tmp_path / FEATURES), ROWS[:1])
    assert (tmp_path / LOG).read_bytes() == b"{}\n"


def test_another_writer_is_noticed(files: CacheFiles, tmp_path: Path) -> None:
    append(files)
    files.check_alone()
    with (tmp_path / LOG).open("ab") as log:
        log.write(b"{}\n")
    with pytest.raises(CacheError) as caught:
        files.check_alone()
    assert str(tmp_path) in str(caught.value)


def test_features_are_written_to_the_disk_while_more_come(
    files: CacheFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the disk refuses: the synchronisation at the end says so."""
    synchronised: list[int] = []

    def refuse(file: int) -> None:
        synchronised.append(file)
        raise OSError("no disk")

    monkeypatch.setattr(cache_files, "_WRITTEN_BACK", 1)
    monkeypatch.setattr(os, "fdatasync", refuse)
    append(files)
    assert files._writing_back is not None
    files._writing_back.join()
    append(files)
    files.close(sync=True)
    assert len(synchronised) == 2
    assert files._writing_back is None


def test_features_that_can_not_be_written_count_for_nothing(
    files: CacheFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(files, b"{}\n")

    def full(array: GrowingArray, rows: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(GrowingArray, "append", full)
    with pytest.raises(OSError, match="no space left"):
        append(files)
    files.close(sync=True)
    assert (tmp_path / LOG).read_bytes() == b"{}\n"


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_every_infinite_feature_and_nan_is_seen(kind: type[np.floating]) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for value in np.concatenate([bits[:: 1 << 5], bits[0x7BFF:0x7C03], bits[0xFBFF:0xFC03]]):
        rows = np.zeros((2, 3), kind)
        rows[1, 2] = value
        assert all_finite(rows) == bool(np.isfinite(value)), value
    assert all_finite(np.zeros((0, 3), kind))
