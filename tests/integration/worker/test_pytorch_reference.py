"""A worker times an engine in turns with PyTorch; whatever goes wrong there fails no build."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from support.make_farm import Farm
from support.models import SMALL
from support.records import blob, preprocess

from builders.jobs.messages import VerificationSpec
from builders.jobs.progress import Event
from builders.worker import reference
from zoo.schema.floors import floors
from zoo.schema.manifest import BatchRange, Manifest
from zoo.schema.measurements import BatchTimes
from zoo.schema.precisions import Precision

QUIET = BatchTimes(batch=1, latency_ms=1.0)
NOISY = BatchTimes.model_validate({"batch": 1, "not_measured": "other processes used 83%"})


class Engine:
    """An engine that takes no time."""

    input_shape = (3, 224, 224)

    def features(self, images: Any) -> Any:
        return np.zeros((len(images), 8), np.float32)


class GpuEngine(Engine):
    """The same, of a GPU."""

    profiles = (BatchRange(min=1, opt=1, max=1),)

    def time_on_device(self, *arguments: Any, **options: Any) -> list[float]:
        return []


@pytest.fixture
def spec(manifests: dict[str, Manifest]) -> VerificationSpec:
    return VerificationSpec(
        golden=blob(b"golden"), preprocess=preprocess(), tolerance=floors()[Precision.FP32],
        batches=(1,), benchmark=(1,), reference=manifests[SMALL],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(reference.REFERENCE)


def measure(
    spec: VerificationSpec, engine: Any = None, timed: BatchTimes = QUIET, noise: bool = True
) -> tuple[Any, str | None]:
    def report(event: Event) -> None:
        """Nobody looks."""

    return reference.measure(engine or Engine(), spec, (timed,), report, keep_noise=noise)


def test_pytorch_runs_in_turns(spec: VerificationSpec) -> None:
    body, why = measure(spec)
    assert why is None
    (row,) = body.batches
    assert row.batch == 1
    assert row.ratio > 1
    assert "in turns" in body.pytorch


def test_nothing_is_compared_where_nothing_is_timed(spec: VerificationSpec) -> None:
    assert measure(spec.model_copy(update={"benchmark": ()})) == (None, None)
    assert measure(spec.model_copy(update={"reference": None})) == (None, None)


def test_it_can_be_left_out(spec: VerificationSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reference.REFERENCE, "0")
    assert measure(spec) == (None, reference.LEFT_OUT)


def test_a_worker_without_pytorch_says_so(
    spec: VerificationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert measure(spec) == (None, reference.NO_PYTORCH)


def test_an_engine_of_a_gpu_is_compared_elsewhere(spec: VerificationSpec) -> None:
    assert measure(spec, GpuEngine()) == (None, reference.ON_A_GPU)


def test_a_busy_machine_does_not_even_load_pytorch(
    spec: VerificationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    body, why = measure(spec, timed=NOISY)
    assert body is None
    assert "83%" in str(why)


def test_a_model_that_timm_lacks_costs_the_ratio_alone(spec: VerificationSpec) -> None:
    assert spec.reference is not None
    manifest = spec.reference.model_copy(update={"arch": "no_such_model"})
    body, why = measure(spec.model_copy(update={"reference": manifest}))
    assert body is None
    assert "no_such_model" in str(why)


def test_an_engine_that_fails_meanwhile_costs_the_ratio_alone(spec: VerificationSpec) -> None:
    class Failing(Engine):
        def features(self, images: Any) -> Any:
            raise RuntimeError("out of memory")

    body, why = measure(spec, Failing())
    assert body is None
    assert "out of memory" in str(why)


def test_make_zoo_publishes_the_ratio(dry_run_copy: Farm) -> None:
    for path in (dry_run_copy.store / "records").rglob("*.json"):
        path.unlink()  # to be built again
    done = dry_run_copy.make("WEIGHTS=seeded", f"MODELS={SMALL}", "GPU=cpu", "PRECISION=fp32")
    assert done.returncode == 0, done.stdout + done.stderr
    index = dry_run_copy.repository.model_index(SMALL)
    assert index is not None
    (entry,) = index.current
    assert entry.comparison is not None
    assert all(row.ratio for row in entry.comparison.batches)
    shown = dry_run_copy.zoo("show", SMALL).stdout
    assert "PyTorch" in shown
    page = "".join(path.read_text() for path in (dry_run_copy.folder / "site").rglob("*.html"))
    assert "Against PyTorch (95% interval)" in page
