"""Batches of a pass on the CPU: in pieces, a thread each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from support.caft import TOY

from zoo.runtime.base import Pipelined, pipeline_of
from zoo.runtime.onnxruntime import OnnxRuntimeSession
from zoo.util.errors import RunError


@pytest.fixture
def session() -> Iterator[OnnxRuntimeSession]:
    with OnnxRuntimeSession(TOY, 16, threads=4, layouts=True) as opened:
        yield opened


def _images(session: OnnxRuntimeSession, rows: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(rows).random((rows, *session.input_shape), np.float32)


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 7, 16, 40])
def test_features_are_those_of_the_session_to_the_bit(
    session: OnnxRuntimeSession, largest: int
) -> None:
    assert isinstance(session, Pipelined)
    with session.pipeline() as pipeline:
        for rows in (largest, 1, largest):  # the last batch of a data set is smaller
            images = _images(session, rows)
            found = pipeline.begin(images).features()
            np.testing.assert_array_equal(found, session.features(images))


def test_images_may_be_overwritten_and_batches_overlap(session: OnnxRuntimeSession) -> None:
    with pipeline_of(session) as pipeline:
        images = pipeline.host_memory((8, *session.input_shape))
        running, expected = [], []
        for rows in range(1, 1 + pipeline.ahead + 1):
            images[:] = _images(session, 8) * rows
            expected.append(session.features(images.copy()))
            running.append(pipeline.begin(images))
            images[:] = np.nan
        for run, features in zip(running, expected, strict=True):
            np.testing.assert_array_equal(run.features(), features)


def test_features_go_where_they_are_wanted_in_the_type_of_that(
    session: OnnxRuntimeSession,
) -> None:
    images = _images(session, 5)
    expected = session.features(images)
    room = np.empty(expected.shape, np.float16)
    with session.pipeline() as pipeline:
        assert pipeline.begin(images).features(into=room) is room
    np.testing.assert_array_equal(room, expected.astype(np.float16))


@pytest.mark.parametrize(("cores", "rows", "loads"), [(4, 8, [1]), (5, 4, [2]), (4, 3, [])])
def test_cores_are_shared_among_the_pieces(
    cores: int, rows: int, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with OnnxRuntimeSession(TOY, 16, threads=cores, layouts=True) as session:
        loaded: list[int] = []
        load = session._with_threads

        def loading(threads: int) -> OnnxRuntimeSession:
            loaded.append(threads)
            return load(threads)

        monkeypatch.setattr(session, "_with_threads", loading)
        with session.pipeline() as pipeline:
            for _ in range(3):
                pipeline.begin(_images(session, rows)).features()
        assert loaded == loads
        session.features(_images(session, 1))  # is still open


def test_wrong_images_are_refused_at_once(session: OnnxRuntimeSession) -> None:
    with session.pipeline() as pipeline, pytest.raises(RunError, match="float64"):
        pipeline.begin(np.zeros((2, *session.input_shape)))


def test_an_engine_that_fails_says_so_and_its_threads_end(
    session: OnnxRuntimeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: OnnxRuntimeSession, images: object) -> None:
        raise RunError("no memory")

    with session.pipeline() as pipeline:
        pipeline.begin(_images(session, 4)).features()
        monkeypatch.setattr(OnnxRuntimeSession, "features", fails)
        with pytest.raises(RunError, match="no memory"):
            pipeline.begin(_images(session, 4)).features()
    assert not [each for each in threading.enumerate() if each.name.startswith("engine")]


def test_another_file_in_the_engines_place_is_not_loaded(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_bytes(TOY.read_bytes())
    with OnnxRuntimeSession(engine, 16, threads=2) as session, session.pipeline() as pipeline:
        changed = bytearray(TOY.read_bytes())
        changed[len(changed) // 2] ^= 1  # of a weight: it loads, and computes other features
        engine.write_bytes(changed)
        images = _images(session, 4)
        np.testing.assert_array_equal(pipeline.begin(images).features(), session.features(images))


def test_a_closed_session_opens_no_pipeline(session: OnnxRuntimeSession) -> None:
    session.close()
    with pytest.raises(RunError, match="the session is closed"):
        session.pipeline()


def test_an_engine_whose_file_is_gone_runs_as_it_was_loaded(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_bytes(TOY.read_bytes())
    with OnnxRuntimeSession(engine, 16, threads=2) as session, session.pipeline() as pipeline:
        engine.unlink()
        images = _images(session, 4)
        np.testing.assert_array_equal(pipeline.begin(images).features(), session.features(images))
