"""The pipeline of a TensorRT session, on a fake GPU: what it overlaps, what waits for what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.caft import record
from support.fake_gpu import WIDTH, FakeEngine, FakeGpu, expected, open_fake
from support.goldens import raises_golden

from zoo.caft import FeatureCache, cache_features
from zoo.caft.sample import Sample
from zoo.inference.extractor import Extractor
from zoo.runtime.base import Pipelined
from zoo.runtime.tensorrt.session import TensorRTSession
from zoo.util.errors import DatasetError, RunError


@pytest.fixture(params=[(), (1,), (2, 3), (1, 2, 3)], ids=["late", "engine", "copies", "early"])
def gpu(request: pytest.FixtureRequest) -> FakeGpu:
    return FakeGpu(early=request.param)


@pytest.fixture
def session(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TensorRTSession]:
    with open_fake(gpu, tmp_path, monkeypatch) as opened:
        yield opened


def images(rows: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, 3, 32, 32), np.float32)


def near(found: Any, batch: npt.NDArray[np.float32]) -> bool:
    return np.allclose(found, expected(batch), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("free", [1 << 30, 110_000])  # the second: no place for another batch
def test_batches_of_any_size_one_ahead(session: TensorRTSession, gpu: FakeGpu, free: int) -> None:
    gpu.free = free
    assert isinstance(session, Pipelined)
    with session.pipeline() as pipeline:
        memory = pipeline.host_memory((20, 3, 32, 32))
        waiting: list[tuple[npt.NDArray[np.float32], Any]] = []
        for seed, rows in enumerate((8, 8, 3, 20, 1, 8, 20, 5)):
            batch = images(rows, seed)
            memory[:rows] = batch
            waiting.append((batch, pipeline.begin(memory[:rows])))
            memory[:] = np.nan  # it may be written to again
            if len(waiting) > pipeline.ahead:
                before, running = waiting.pop(0)
                assert near(running.features(), before)
        before, running = waiting.pop()
        assert near(running.features(), before)
    assert near(session.features(images(3)), images(3))
    session.close()
    assert gpu.held() == 0
    assert all(np.isnan(one.array).all() for one in gpu.locked)


def test_the_engine_is_not_waited_for(session: TensorRTSession, gpu: FakeGpu) -> None:
    with session.pipeline() as pipeline:
        first = pipeline.begin(images(8, 1))
        second = pipeline.begin(images(8, 2))
        assert gpu.ran == (2 if 1 in gpu.early else 0)  # the copies are in, the engine has time
        assert near(first.features(), images(8, 1))
        assert gpu.ran == (2 if 1 in gpu.early else 1)
        assert near(second.features(), images(8, 2))


def test_memory_that_can_not_be_locked_is_plain(session: TensorRTSession, gpu: FakeGpu) -> None:
    gpu.lockable = False
    with session.pipeline() as pipeline:
        assert pipeline.host_memory((2, 3, 32, 32)).shape == (2, 3, 32, 32)
    assert gpu.locked == []


def test_wrong_images_are_refused(session: TensorRTSession) -> None:
    with session.pipeline() as pipeline, pytest.raises(RunError, match="float64"):
        pipeline.begin(np.zeros((1, 3, 32, 32)))  # type: ignore[arg-type]


def test_a_pass_writes_the_features_of_each_image(
    session: TensorRTSession, gpu: FakeGpu, tmp_path: Path
) -> None:
    ready = images(50)
    samples = [
        Sample(name=f"{number}", label=None, read=lambda n=number: ready[n])  # type: ignore[misc]
        for number in range(50)
    ]
    made = Extractor(session, record(feature_dim=WIDTH))
    card, state = cache_features(samples, made, tmp_path / "cache", batch=8)
    assert (card.samples, state.images) == (50, 50)
    assert near(FeatureCache(tmp_path / "cache").features, ready)
    assert len(gpu.locked) == 5
    cache_features(samples, made, tmp_path / "again", batch=8)
    assert near(FeatureCache(tmp_path / "again").features, ready)
    assert len(gpu.locked) == 5  # lent again


def test_what_was_begun_is_written_where_the_source_fails(
    session: TensorRTSession, tmp_path: Path
) -> None:
    ready = images(20)

    class Failing:
        def __iter__(self) -> Iterator[Sample]:
            for number in range(20):
                yield Sample(name=f"{number}", label=None, read=lambda n=number: ready[n])  # type: ignore[misc]
            raise DatasetError("the disk is gone")

    made = Extractor(session, record(feature_dim=WIDTH))
    with pytest.raises(DatasetError, match="the disk is gone"):
        cache_features(Failing(), made, tmp_path / "cache", batch=8)
    features = np.load(tmp_path / "cache" / "features.npy")
    assert near(features, ready)


def test_an_engine_of_another_shape_is_a_sentence(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "get_tensor_shape", lambda *_: (-1, 3, 32, 32))
    with raises_golden(RunError, "runtime/engine-of-another-shape", match=r"-1, 3, 32, 32"):
        open_fake(gpu, tmp_path, monkeypatch)
