"""Copies through page-locked memory, on a GPU of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.fake_gpu import FakeGpu, open_fake

from zoo.inference.gpu import staging
from zoo.inference.gpu.staging import Staging

SIZES = [
    [9 << 20],
    [3 << 20, 1, 5 << 20, 0, 7],
    [5000] * 2000,
    [80 << 20],  # more than the page-locked memory
    [100],
]


@pytest.mark.parametrize("sizes", SIZES, ids=["one", "mixed", "many", "large", "small"])
@pytest.mark.parametrize("early", [(), (2,)], ids=["late", "early"])
@pytest.mark.parametrize("lockable", [True, False], ids=["locked", "not locked"])
def test_arrays_arrive_one_behind_the_other(
    sizes: list[int],
    early: tuple[int, ...],
    lockable: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(early=early, lockable=lockable)
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    expected = np.concatenate(arrays)
    with open_fake(gpu, tmp_path, monkeypatch):
        stream, copies = gpu.create_stream(), Staging()
        target = gpu.allocate(len(expected))
        for _ in range(2):  # what one leaves is used by the next
            target.data[:] = 0
            copies.copy(target.handle, arrays, stream)
            stream.sync()
            assert np.array_equal(target.data, expected)
        assert len(gpu.locked) == (lockable and sum(sizes) >= staging._WORTH)
        copies.close()


def test_arrays_may_change_once_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu()
    array = np.arange(6 << 20, dtype=np.uint8)
    expected = array.copy()
    with open_fake(gpu, tmp_path, monkeypatch):
        stream, copies = gpu.create_stream(), Staging()
        target = gpu.allocate(len(array))
        copies.copy(target.handle, [array], stream)
        array[:] = 0
        stream.sync()
        assert np.array_equal(target.data, expected)
        copies.close()


def test_other_layouts_and_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    whole = np.arange(3 * 1100 * 1100, dtype=np.float32).reshape(3, 1100, 1100)
    parts = [whole[:, ::2, ::2], (whole % 1000).astype(np.float16)]
    with open_fake(gpu, tmp_path, monkeypatch):
        stream, copies = gpu.create_stream(), Staging()
        expected = b"".join(part.tobytes() for part in parts)
        target = gpu.allocate(len(expected))
        copies.copy(target.handle, parts, stream)
        stream.sync()
        assert target.data.tobytes() == expected
        copies.close()
