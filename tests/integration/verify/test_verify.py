"""The gate bites: faults put into features are found, at every batch."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.goldens import raises_golden
from support.paths import ROOT
from support.records import decided_batch, loose_tolerance, small_preprocess

from builders.jobs.messages import Verification
from builders.jobs.progress import silent
from builders.photos.edge import edge_batch
from builders.verify.benchmark import benchmark
from builders.verify.compare import verify
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from builders.verify.spread import ForeignLoad, median_interval
from zoo.inference.preprocess import normalise
from zoo.schema.floors import LIMITS
from zoo.schema.manifest import BatchRange, Preprocess
from zoo.schema.measurements import BatchNumbers, BatchTimes
from zoo.util.errors import VerificationError

HALF = (0.5, 0.5, 0.5)
PREPROCESS = small_preprocess(crop=1.0)
TOLERANCE = loose_tolerance(cosine=0.9999, relative_error=2e-3, distance_error=1e-2, neighbours=0.9)
Array = npt.NDArray[Any]
TEST_PATHS = (ROOT, ROOT / "tests", ROOT / "tests" / "integration" / "verify")


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


class DeviceSession(ArraySession):
    """The same, timed as an engine of a GPU is."""

    profiles: tuple[BatchRange, ...] = ()

    def time_on_device(
        self, batch: int, profile: int, runs: int, *, cuda_graph: bool = True
    ) -> list[float]:
        raise NotImplementedError


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    images = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    features = ArraySession().features(normalise(images, PREPROCESS))
    np.savez(tmp_path / "golden.npz", images=images, features=features)
    return tmp_path / "golden.npz"


def judge(golden: Path, session: ArraySession, preprocess: Preprocess = PREPROCESS) -> Verification:
    return verify(session, golden, preprocess, TOLERANCE, (1, 3, 64), silent)


def test_torch_is_not_loaded_to_compare_arrays(golden: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import test_verify as these; "
        "assert these.judge(Path(sys.argv[1]), these.ArraySession()).passed; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, golden], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, TEST_PATHS))},
    )  # fmt: skip
    assert done.stdout.split()[-1] == "False"  # after a warning of Polygraphy


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
        ("neighbours", 0.83, "83% of the nearest photos"),
        ("lost_rows", 1, "1 row is nearest to another photo's"),
    ],
)
def test_each_floor_refuses_alone(name: str, value: float, words: str) -> None:
    just = {limit.measured: getattr(TOLERANCE, name) for name, limit in LIMITS.items()}
    kept = BatchNumbers.model_validate(decided_batch(3, worst_row=2, **just))
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


@pytest.mark.parametrize(
    ("batch", "kept", "meets"),
    [(1, 5, True), (1, 4, True), (1, 3, False), (3, 13, True), (3, 12, False), (64, 287, True),
     (64, 286, False)],
)  # fmt: skip
def test_one_neighbour_may_change_in_any_batch(batch: int, kept: int, meets: bool) -> None:
    just = {limit.measured: getattr(TOLERANCE, name) for name, limit in LIMITS.items()}
    numbers = decided_batch(batch, worst_row=0, **just | {"neighbours": kept / (5 * batch)})
    assert (find_misses(BatchNumbers.model_validate(numbers), TOLERANCE) == []) is meets


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
    with raises_golden(VerificationError, "verify/damaged-golden", match=r"golden\.npz"):
        judge(tmp_path / "golden.npz", ArraySession())


class Clock:
    """A clock that each call of an engine advances, by the next of some durations."""

    def __init__(self, durations: list[float]) -> None:
        self.now, self._durations = 0.0, itertools.cycle(durations)

    def __call__(self) -> float:
        return self.now

    def run(self, features: Array) -> Array:
        self.now += next(self._durations)
        return features


def timed(durations: list[float], others: float | None = 0.0, *, noise: bool = False) -> BatchTimes:
    """A benchmark of calls that take some time each, beside others that use some of the cores."""
    clock = Clock(durations)

    def load_of(wall: Callable[[], float]) -> ForeignLoad:
        def busy() -> float | None:
            return None if others is None else wall() * (1 + 4 * others)

        return ForeignLoad(wall, busy, own=wall, cores=4)

    (row,) = benchmark(
        ArraySession(clock.run), (4,), silent, clock=clock, load_of=load_of, keep_noise=noise
    )
    return row


def test_a_benchmark_on_a_quiet_machine_states_spread_and_load() -> None:
    row = timed([0.010, 0.0102, 0.0098, 0.010], others=0.02)
    assert (row.batch, row.load, row.not_measured) == (4, 0.02, None)
    assert row.runs in (40, 41)
    assert row.latency_ms == pytest.approx(10)
    assert row.images_per_second == pytest.approx(400)
    assert row.mad_ms == pytest.approx(0.1, abs=0.11)
    assert row.interval_ms == pytest.approx((10, 10))


@pytest.mark.parametrize(
    ("durations", "others", "words"),
    [
        ([0.01], 0.5, "other processes used 50% of the cores"),  # steady, and far too slow
        ([0.01], 0.11, "other processes used 11%"),
        ([0.01, 0.05, 0.02, 0.08], 0.0, "the median is known to"),
        ([0.01, 0.05, 0.02, 0.08], None, "the median is known to"),
        ([4.0], 0.0, "2 runs fitted into the time, 6 are needed"),
        ([60.0], 0.0, "1 runs fitted into the time"),
    ],
)
def test_a_time_of_a_busy_machine_is_not_measured(
    durations: list[float], others: float | None, words: str
) -> None:
    row = timed(durations, others)
    assert words in str(row.not_measured)
    assert not row.states("latency_ms")
    assert not row.states("images_per_second")
    assert timed(durations, others, noise=True).states("latency_ms")


def test_a_batch_size_that_can_not_be_timed_in_time_is_not_begun() -> None:
    """Six runs of 32 images take 12 s even if an image takes half as long as in a batch of 4."""
    calls: list[int] = []
    clock = Clock([0.5])

    def run(features: Array) -> Array:
        calls.append(len(features))
        return clock.run(features)

    first, second = benchmark(ArraySession(run), (4, 32), silent, clock=clock)
    assert first.states("latency_ms")
    assert "6 runs would take 12 s or more" in str(second.not_measured)
    assert set(calls) == {4}


def test_an_interval_encloses_the_median_by_order_statistics() -> None:
    assert median_interval([1.0] * 5) is None
    assert median_interval([float(n) for n in range(6)]) == (0, 5)
    # Published ranks for n = 20 at 95% are 6 and 15.
    assert median_interval([float(n) for n in range(1, 21)]) == (6, 15)


def edge_fault(level: float, fault: Callable[[Array], Array]) -> ArraySession:
    """A session that goes wrong for images that are flat and of one level only."""

    class Session(ArraySession):
        def features(self, images: Array) -> Array:
            features = super().features(images)
            flat = (images == np.float32(level)).all(axis=(1, 2, 3))
            features[flat] = fault(features[flat])
            return features

    return Session()


EDGE_FAULTS = [
    ("mean", 0.0, np.nan), ("black", -1.0, np.nan), ("white", 1.0, np.inf), ("white", 1.0, -np.inf),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "value"), EDGE_FAULTS)
def test_a_flat_picture_that_goes_wrong_is_found(
    name: str, level: float, value: float, golden: Path
) -> None:
    with np.load(golden) as arrays:
        old = dict(arrays)
    edges = ArraySession().features(edge_batch(PREPROCESS, 8))
    np.savez(golden, **old, edge_features=edges)
    assert judge(golden, ArraySession()).passed
    verdict = judge(golden, edge_fault(level, lambda f: np.full_like(f, value)))
    assert not verdict.passed
    assert f"the picture '{name}'" in str(verdict.reason)
    # What PyTorch has no finite features of is not the engine's fault.
    np.savez(golden, **old, edge_features=np.full_like(edges, np.nan))
    assert judge(golden, edge_fault(level, lambda f: np.full_like(f, value))).passed


def test_edge_pictures_run_at_one_batch_size_on_a_cpu_and_at_each_on_a_gpu(golden: Path) -> None:
    verdict = judge(golden, ArraySession())
    assert [bool(of_batch.edges) for of_batch in verdict.batches] == [True, False, False]
    verdict = judge(golden, DeviceSession())
    assert all(of_batch.edges for of_batch in verdict.batches)


def test_an_old_golden_file_still_shows_what_is_not_finite(golden: Path) -> None:
    verdict = judge(golden, ArraySession())
    assert verdict.passed
    assert verdict.batches[0].edges["noise"].model_dump() == {"finite": True}
    assert not judge(golden, edge_fault(0.0, lambda f: np.full_like(f, np.nan))).passed
    assert judge(golden, edge_fault(-1.0, lambda f: f + 1e3)).passed
