"""The gate bites: faults put into features are found, at every batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.records import small_preprocess

from builders.jobs.messages import Verification
from builders.jobs.progress import silent
from builders.verify.benchmark import benchmark
from builders.verify.compare import verify
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from zoo.inference.preprocess import normalise
from zoo.schema.floors import Tolerance
from zoo.schema.manifest import Preprocess
from zoo.schema.measurements import BatchNumbers
from zoo.util.errors import VerificationError

HALF = (0.5, 0.5, 0.5)
PREPROCESS = small_preprocess(crop=1.0)
TOLERANCE = Tolerance(cosine=0.9999, relative_error=2e-3, distance_error=1e-2, neighbours=0.9)
Array = npt.NDArray[Any]


class ArraySession:
    """A session whose engine is a numpy function; a fault may be put behind it."""

    input_shape = (3, 8, 8)

    def __init__(self, fault: Callable[[Array], Array] = lambda features: features) -> None:
        self._fault = fault
        self._weights = np.random.default_rng(0).standard_normal((3 * 8 * 8, 32))

    def features(self, images: Array) -> Array:
        flat = images.reshape(len(images), -1)
        return self._fault(np.maximum(flat @ self._weights, 0).astype(np.float32))

    def close(self) -> None:
        pass

    def __enter__(self) -> ArraySession:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    images = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    features = ArraySession().features(normalise(images, PREPROCESS))
    np.savez(tmp_path / "golden.npz", images=images, features=features)
    return tmp_path / "golden.npz"


def judge(golden: Path, session: ArraySession, preprocess: Preprocess = PREPROCESS) -> Verification:
    return verify(session, golden, preprocess, TOLERANCE, (1, 3, 64), silent)


def test_a_true_engine_passes_with_numbers_for_each_batch(golden: Path) -> None:
    verdict = judge(golden, ArraySession())
    assert verdict.passed
    assert verdict.reason is None
    assert [numbers.batch for numbers in verdict.batches] == [1, 3, 64]
    assert all(numbers.worst_cosine > 0.9999 for numbers in verdict.batches)


def one_row(features: Array) -> Array:
    features = features.copy()
    if len(features) == 64:
        features[37] = features[38]
    return features


def one_noisy_row(features: Array) -> Array:
    features = features.copy()
    features[-1] += 0.05 * np.linalg.norm(features[-1]) / np.sqrt(features.shape[1])
    return features


def nan(features: Array) -> Array:
    features = features.copy()
    features[0, 5] = np.nan
    return features


def infinity(features: Array) -> Array:
    return np.where(features == features.max(), np.inf, features).astype(np.float32)


def only_batch_one_is_right(features: Array) -> Array:
    return features if len(features) == 1 else np.roll(features, 1, axis=0)


FAULTS: dict[str, tuple[Callable[[Array], Array], str]] = {
    "one bad row in a batch of 64": (one_row, "batch 64: row 37"),
    "one noisy row": (one_noisy_row, "relative error"),
    "scaled": (lambda f: f * np.float32(1.05), "relative error"),
    "channels swapped": (lambda f: f[:, ::-1].copy(), "cosine"),
    "rows rolled where batch is above 1": (only_batch_one_is_right, "batch 3"),
    "all rows the same": (lambda f: np.broadcast_to(f[:1], f.shape).copy(), "cosine"),
    "zero": (np.zeros_like, "cosine"),
    "NaN": (nan, "NaN or infinity"),
    "infinity": (infinity, "NaN or infinity"),
    "wrong width": (lambda f: f[:, :16].copy(), "shape"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str, golden: Path) -> None:
    fault, words = FAULTS[name]
    verdict = judge(golden, ArraySession(fault))
    assert not verdict.passed
    assert words in str(verdict.reason)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("worst_cosine", 0.9998, "row 2 has cosine 0.999800"),
        ("worst_relative_error", 0.0021, "relative error 0.0021"),
        ("worst_distance_error", 0.011, "distance error 0.011"),
        ("neighbours", 0.89, "89% of the nearest photos"),
        ("lost_rows", 1, "1 rows are nearest to another photo's"),
    ],
)
def test_each_floor_refuses_alone(name: str, value: float, words: str) -> None:
    kept = BatchNumbers(
        batch=3, finite=True, worst_row=2, lost_rows=0, worst_cosine=0.9999,
        worst_relative_error=2e-3, worst_distance_error=1e-2, neighbours=0.9,
    )  # fmt: skip
    assert find_misses(kept, TOLERANCE) == []
    (miss,) = find_misses(kept.but(**{name: value}), TOLERANCE)
    assert words in miss


@pytest.mark.parametrize(
    "changes", [{"mean": (0.485, 0.456, 0.406)}, {"std": (0.229, 0.224, 0.225)}], ids=str
)
def test_wrong_mean_and_std_are_found(changes: dict[str, Any], golden: Path) -> None:
    assert not judge(golden, ArraySession(), PREPROCESS.model_copy(update=changes)).passed


def test_an_engine_that_takes_blue_first_is_found(golden: Path) -> None:
    class BlueFirst(ArraySession):
        def features(self, images: Array) -> Array:
            return super().features(images[:, ::-1])

    assert not judge(golden, BlueFirst()).passed


def test_numbers_of_a_batch_are_what_they_are_called() -> None:
    # Seven photos a step apart in one direction, all of them far along another.
    golden = np.stack([np.arange(7.0), np.full(7, 100.0)], axis=1)
    moved = golden.copy()
    moved[0, 0] = 5.4  # now nearest to photo 5, and its nearest others are 1 to 6 but the first
    numbers = compare_rows(moved[[0, 1, 6]], golden[[0, 1, 6]], golden)
    cosine = (golden[0] @ moved[0]) / np.linalg.norm(golden[0]) / np.linalg.norm(moved[0])
    assert numbers.worst_cosine == pytest.approx(cosine)
    assert numbers.median_cosine == pytest.approx(1.0)
    assert numbers.worst_row == 0
    assert numbers.lost_rows == 1
    assert numbers.worst_relative_error == pytest.approx(5.4 / 100)
    assert numbers.worst_distance_error == pytest.approx(5.4)  # to the nearest, a step away
    assert numbers.neighbours == pytest.approx((0.8 + 1 + 1) / 3)
    assert numbers.photos["0"].cosine == pytest.approx(cosine)
    assert numbers.photos["6"].model_dump() == {
        "cosine": 1.0,
        "relative_error": 0.0,
        "distance_error": 0.0,
    }


def test_the_order_of_neighbours_does_not_matter() -> None:
    golden = np.arange(7.0)[:, None] + 100
    found = golden[[0]] + 6  # 6, 5, 4, 3, 2 are its nearest now, of 1 to 5
    numbers = compare_rows(found, golden[[0]], golden)
    assert numbers.neighbours == pytest.approx(0.8)


def test_a_photo_has_the_worst_of_its_rows() -> None:
    golden = np.eye(3)
    found = golden[[1, 1]] * [[1.0], [1.1]] + [[0, 0, 0], [0.1, 0, 0]]
    numbers = compare_rows(found, golden[[1, 1]], golden)
    error = float(np.hypot(0.1, 0.1))
    assert numbers.photos["1"].cosine == pytest.approx(1.1 / np.hypot(1.1, 0.1))
    assert numbers.median_cosine == pytest.approx((1 + 1.1 / np.hypot(1.1, 0.1)) / 2)
    assert numbers.photos["1"].relative_error == pytest.approx(error)
    assert numbers.photos["1"].distance_error == pytest.approx(error / np.sqrt(2))


def test_a_lost_row_is_counted(golden: Path) -> None:
    """Near its own features by cosine, nearer still to another photo's: that is lost."""
    verdict = judge(golden, ArraySession(one_row))
    assert verdict.batches[-1].lost_rows == 1


def test_a_damaged_golden_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "golden.npz").write_bytes(b"PK nothing")
    with pytest.raises(VerificationError, match="not a golden file"):
        judge(tmp_path / "golden.npz", ArraySession())


def test_a_benchmark_is_bounded_and_consistent() -> None:
    now = iter(np.arange(0, 1e6, 0.5))
    (row,) = benchmark(ArraySession(), (4,), silent, clock=lambda: float(next(now)))
    assert row.batch == 4
    assert row.runs == 2
    assert row.latency_ms == 500
    assert row.images_per_second == 8
