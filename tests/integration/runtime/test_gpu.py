"""Standard TensorRT for real: build, run, zero-copy, graphs, threads. Needs an NVIDIA GPU.

Runs with numpy, polygraphy, cuda-core and TensorRT alone, on Python 3.10 and later. The networks
are those of ``tests/support/make_toy.py``: opset 17, which every TensorRT reads.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.installed import installed_inputs
from support.paths import DATA
from support.records import small_preprocess

from builders.backends import get_backend
from zoo.client.host import installed, local_archs
from zoo.runtime import cuda
from zoo.runtime.tensorrt.session import TensorRTSession, open_session
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange
from zoo.util.errors import RunError

pytestmark = pytest.mark.skipif(
    not local_archs() or installed("trt") is None,
    reason="no NVIDIA GPU with standard TensorRT (pip package tensorrt)",
)

TOY = DATA / "toy.onnx"
MIXED = TOY.with_name("mixed.onnx")
PROFILES = (BatchRange(opt=1, max=8), BatchRange(min=9, opt=32, max=32))


def make_inputs(**changes: Any) -> BuildInputs:
    toolchain = installed("trt")
    assert toolchain is not None
    defaults: dict[str, Any] = {
        "preprocess": small_preprocess(crop=1, mean=(0, 0, 0), std=(1, 1, 1)),
        "archs": (local_archs()[0].name,),
        "profiles": PROFILES,
        "options": get_backend("trt")
        .options(toolchain, {"optimization_level": "1"})
        .model_dump(mode="json"),
    }
    return installed_inputs("trt", **{**defaults, **changes})


@pytest.fixture(scope="module")
def inputs() -> BuildInputs:
    return make_inputs()


@pytest.fixture(scope="module")
def engine(inputs: BuildInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "engine"
    facts = get_backend("trt").build(TOY, inputs, path, parameters=216)
    assert facts.values.header is not None
    assert facts.values.header.kind == "trt"
    assert len(facts.values.device_memory or ()) == 2
    assert facts.files["inspector"].stat().st_size > 100
    return path


@pytest.fixture
def session(engine: Path, inputs: BuildInputs) -> Iterator[TensorRTSession]:
    with open_session(engine, inputs) as opened:
        yield opened


def images(rows: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((rows, 3, 32, 32), dtype=np.float32)


def expected(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The toy in numpy: convolution, ReLU, mean; its weights are ``toy_weights()``."""
    windows = np.lib.stride_tricks.sliding_window_view(batch.astype(np.float64), (3, 3), (2, 3))
    found = np.einsum("nchwij,ocij->nohw", windows, toy_weights())
    mean: np.ndarray[Any, Any] = np.maximum(found, 0).mean((2, 3))
    return mean


def toy_weights() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)


class CudaArray:
    """Memory that Polygraphy allocated, as ``__cuda_array_interface__`` tells of it."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        from polygraphy.cuda import DeviceArray

        self._memory = DeviceArray(shape=array.shape, dtype=array.dtype).copy_from(array)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self._memory.ptr, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 20, 32, 33, 70])
@pytest.mark.parametrize("graphs", [False, True])
def test_any_batch(engine: Path, inputs: BuildInputs, rows: int, graphs: bool) -> None:
    with open_session(engine, inputs, cuda_graphs=graphs) as session:
        for seed in (0, 1):  # the second replays what the first captured
            found = session.features(images(rows, seed))
            assert np.allclose(found, expected(images(rows, seed)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 9, 40])
@pytest.mark.parametrize("graphs", [False, True])
def test_cuda_arrays_stay_on_the_gpu(
    engine: Path, inputs: BuildInputs, rows: int, graphs: bool
) -> None:
    with open_session(engine, inputs, cuda_graphs=graphs) as session:
        found = session.features(CudaArray(images(rows)))
    assert isinstance(found, cuda.DeviceArray)
    assert found.shape == (rows, 8)
    assert np.allclose(found.numpy(), expected(images(rows)), rtol=1e-4, atol=1e-5)
    assert found.__cuda_array_interface__["shape"] == (rows, 8)


def test_dlpack_goes_in_and_out(session: TensorRTSession) -> None:
    from cuda.core.utils import StridedMemoryView

    class DlpackOnly:
        def __init__(self, array: Any) -> None:
            memory = CudaArray(array)
            self._view = StridedMemoryView.from_cuda_array_interface(memory, -1)

        def __dlpack__(self, **arguments: Any) -> Any:
            return self._view.__dlpack__(**arguments)

        def __dlpack_device__(self) -> Any:
            return self._view.__dlpack_device__()

    found = session.features(DlpackOnly(images(4)))
    again = StridedMemoryView.from_dlpack(found, -1)
    assert tuple(again.shape) == (4, 8)
    assert int(again.ptr) == found.__cuda_array_interface__["data"][0]
    assert np.allclose(found.numpy(), expected(images(4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graphs", [False, True])
def test_a_pipeline_is_one_batch_ahead(engine: Path, inputs: BuildInputs, graphs: bool) -> None:
    waiting: list[tuple[int, Any]] = []

    def take() -> None:
        seed, running = waiting.pop(0)
        wanted = expected(images(sizes[seed], seed))
        assert np.allclose(running.features(), wanted, rtol=1e-4, atol=1e-5)

    sizes = (32, 32, 1, 70, 9, 32, 32, 3)
    with open_session(engine, inputs, cuda_graphs=graphs) as session:
        for _ in range(2):
            with session.pipeline() as pipeline:
                memory = pipeline.host_memory((70, 3, 32, 32))
                for seed, rows in enumerate(sizes):
                    memory[:rows] = images(rows, seed)
                    waiting.append((seed, pipeline.begin(memory[:rows])))
                    memory[:] = np.nan  # it is free again
                    if len(waiting) > pipeline.ahead:
                        take()
                while waiting:
                    take()


def test_several_threads_share_a_session(session: TensorRTSession) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for turn in range(10):
            rows = 1 + (seed * 7 + turn * 5) % 40
            batch = images(rows, seed)
            if not np.allclose(session.features(batch), expected(batch), rtol=1e-4, atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_runs_are_timed_on_the_gpu(session: TensorRTSession) -> None:
    for graph in (True, False):
        times = session.time_on_device(32, 1, 5, cuda_graph=graph)
        assert len(times) == 5
        assert all(time > 0 for time in times)


def test_what_the_memory_does_not_hold_is_said_before(
    session: TensorRTSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "free_memory", lambda: 1000)
    with pytest.raises(RunError, match=r"\b8\b.*\bMiB\b"):
        session.features(images(1))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (np.zeros((1, 3, 16, 16), np.float32), r"shape \(1, 3, 16, 16\)"),
        (np.zeros((1, 3, 32, 32), np.float16), "float16"),
        (np.zeros((0, 3, 32, 32), np.float32), "N >= 1"),
    ],
)
@pytest.mark.parametrize("on_gpu", [False, True])
def test_wrong_images_are_refused(
    session: TensorRTSession, batch: Any, words: str, on_gpu: bool
) -> None:
    if on_gpu and batch.size == 0:
        pytest.skip("Polygraphy allocates no empty array")
    with pytest.raises(RunError, match=words):
        session.features(CudaArray(batch) if on_gpu else batch)


def test_what_speaks_no_protocol_is_refused(session: TensorRTSession) -> None:
    with pytest.raises(RunError, match=r"\blist\b|__cuda_array_interface__"):
        session.features([1, 2, 3])


def test_a_truncated_engine_is_refused(engine: Path, inputs: BuildInputs, tmp_path: Path) -> None:
    data = engine.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="truncated"):
        open_session(tmp_path / "cut", inputs, len(data))
    with pytest.raises(RunError):
        open_session(tmp_path / "cut", inputs)


def test_an_engine_of_another_version_or_gpu_is_refused(engine: Path, tmp_path: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[24] += 1
    (tmp_path / "newer").write_bytes(data)
    with pytest.raises(RunError, match="TensorRT"):
        open_session(tmp_path / "newer", make_inputs())
    other = "sm75" if local_archs()[0].name != "sm75" else "sm80"
    with pytest.raises(RunError, match=other):
        open_session(engine, make_inputs(archs=(other,)))


def test_a_closed_session_says_so(engine: Path, inputs: BuildInputs) -> None:
    session = open_session(engine, inputs)
    session.features(images(2))
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.features(images(2))


def test_the_timing_cache_is_offered_back(engine: Path, inputs: BuildInputs) -> None:
    cache = engine.with_name("timing.cache")
    assert cache.stat().st_size > 0
    again = engine.with_name("again")
    facts = get_backend("trt").build(TOY, inputs, again, parameters=216, timing_cache=cache)
    assert facts.values.timing_cache in (
        "accepted",
        "rejected by TensorRT; built without it",
    )


def test_what_an_fp16_network_keeps_is_fp32_in_the_engine(tmp_path: Path) -> None:
    parameters = {"kept": 64 * 3 * 9, "low": 64 * 64 * 9}
    inputs = make_inputs(precision="fp16")
    facts = get_backend("trt").build(
        MIXED, inputs, tmp_path / "engine", parameters=sum(parameters.values())
    )
    layers = json.loads(facts.files["inspector"].read_text())["Layers"]
    types = {
        (name, layer["Weights"]["Type"])
        for layer in layers
        for name in parameters
        if name in layer["Name"] and layer.get("Weights")
    }
    # Of two profiles, TensorRT 8.6 chose fp32 for the small one of a layer that may run in fp16.
    assert {kind for name, kind in types if name == "kept"} == {"Float"}
    assert ("low", "Half") in types
    assert facts.precision_proven
