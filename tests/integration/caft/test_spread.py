"""A pass over several processes, each with an engine of its own, against one in this process."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import folder, photo, toy
from support.goldens import raises_golden

from zoo.caft import FeatureCache, cache_features, features, open_runs
from zoo.caft.card import read_card
from zoo.caft.engine_process import EngineProcess
from zoo.caft.file_read import FileRead
from zoo.caft.gpus import chosen_gpus, doubled, idle_gpus, own_gpu
from zoo.caft.labels import LabelError
from zoo.caft.sample import Sample
from zoo.caft.spread import Starting
from zoo.inference.extractor import Extractor
from zoo.inference.gpu import nvjpeg
from zoo.util.errors import DatasetError, RunError, UsageError

TWO = {"GPU 0": {"ZOO_TEST": "0"}, "GPU 1": {"ZOO_TEST": "1"}}


@pytest.fixture
def extractor() -> Iterator[Extractor]:
    with toy() as opened:
        yield opened


@pytest.fixture(params=[1, 2, 3])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Has a pass with devices run in processes on the CPU."""
    names: dict[str, dict[str, str]] = {f"GPU {n}": {} for n in range(request.param)}
    monkeypatch.setattr(features, "chosen_gpus", lambda devices, extractor: names)
    return int(request.param)


def files(cache: Path) -> dict[str, bytes]:
    """What readers of a cache see."""
    names = ("features.npy", "labels.npy", "hashes.npy", "samples.jsonl", "sums.npy")
    return {name: (cache / name).read_bytes() for name in names if (cache / name).exists()}


def test_a_folder(processes: int, extractor: Extractor, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", each=23)
    (data / "class1" / "broken.png").write_bytes(b"no image")
    cache_features(data, extractor, tmp_path / "one", batch=4, augment=1)
    card, state = cache_features(
        data, extractor, tmp_path / "many", batch=4, augment=1, devices="all"
    )
    assert (card.samples, state.bad, card.complete) == (69, 1, True)
    assert files(tmp_path / "many") == files(tmp_path / "one")
    assert card.decoders == read_card(tmp_path / "one").decoders
    _, again = cache_features(data, extractor, tmp_path / "many", augment=1, devices="all")
    assert (again.found, again.images) == (69, 1)


class Pairs:
    """A torch data set that can't be pickled, one item of which raises."""

    classes = ("a", "b")

    def __init__(self, count: int) -> None:
        self._count = count
        self._not_picklable = lambda: None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 5:
            raise KeyError("no such row")
        return photo(index), index % 2


def test_a_data_set_that_is_an_object(processes: int, extractor: Extractor, tmp_path: Path) -> None:
    skipped: list[tuple[str, str]] = []
    cache_features(Pairs(21), extractor, tmp_path / "one", batch=4)
    card, _ = cache_features(
        Pairs(21), extractor, tmp_path / "many", batch=4, devices="all",
        on_bad=lambda name, why: skipped.append((name, why)),
    )  # fmt: skip
    assert files(tmp_path / "many") == files(tmp_path / "one")
    assert skipped == [("000000005", "KeyError: 'no such row'")]
    assert card.labels == ("a", "b")


def test_a_label_that_is_no_class(processes: int, extractor: Extractor, tmp_path: Path) -> None:
    data = [(photo(n), n if n != 9 else 0.5) for n in range(12)]
    with pytest.raises(LabelError):
        cache_features(data, extractor, tmp_path / "cache", batch=2, devices="all")
    card = read_card(tmp_path / "cache")  # none if no batch came before it
    assert card is None or not card.complete


def test_a_source_that_fails(processes: int, extractor: Extractor, tmp_path: Path) -> None:
    """What came before is kept, and the next pass goes on from there."""
    data = folder(tmp_path / "photos", each=7)
    paths = sorted(data.rglob("*.png"))

    class Source:
        fails = True

        def __iter__(self) -> Iterator[Sample]:
            for number, path in enumerate(paths):
                if number == 10 and self.fails:
                    raise DatasetError("cut off")
                yield Sample(name=path.name + str(number), label="a", read=path.read_bytes)

    source = Source()
    with pytest.raises(DatasetError, match="cut off"):
        cache_features(source, extractor, tmp_path / "cache", batch=4, devices="all")
    assert len(FeatureCache(tmp_path / "cache", check_complete=False).labels) == 10
    source.fails = False
    card, state = cache_features(source, extractor, tmp_path / "cache", batch=4, devices="all")
    assert (card.samples, state.images) == (21, 11)


def test_a_killed_process_ends_the_pass(
    processes: int, extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "photos", each=40)
    started: list[EngineProcess] = []
    begin = EngineProcess.__init__

    def remember(self: EngineProcess, *arguments: Any) -> None:
        begin(self, *arguments)
        started.append(self)

    def kill(state: features.Pass) -> None:
        if state.images == 8:
            os.kill(started[-1]._process.pid, signal.SIGKILL)

    monkeypatch.setattr(EngineProcess, "__init__", remember)
    with pytest.raises(RunError, match=r"GPU \d .*-9"):
        cache_features(
            data, extractor, tmp_path / "cache", batch=2, devices="all", on_progress=kill
        )
    assert all(process._process.returncode is not None for process in started)
    card, state = cache_features(data, extractor, tmp_path / "cache", batch=2, devices="all")
    assert card.samples == 120
    assert 0 < state.found < 120
    cache_features(data, extractor, tmp_path / "one", batch=2)
    np.testing.assert_array_equal(
        FeatureCache(tmp_path / "cache").features, FeatureCache(tmp_path / "one").features
    )


def test_an_engine_that_can_not_be_loaded(
    processes: int, extractor: Extractor, tmp_path: Path
) -> None:
    data = folder(tmp_path / "photos")
    extractor.file = tmp_path / "no.onnx"
    with pytest.raises(RunError, match=r"^GPU 0: "):
        cache_features(data, extractor, tmp_path / "cache", devices="all")


def test_an_engine_that_fails(processes: int, extractor: Extractor, tmp_path: Path) -> None:
    """It takes photos of 32 pixels, and gets others."""
    data = folder(tmp_path / "photos")
    preprocess = extractor.preprocess.model_copy(update={"input_size": 40})
    inputs = extractor.record.inputs.model_copy(update={"preprocess": preprocess})
    extractor.record = extractor.record.model_copy(update={"inputs": inputs})
    with pytest.raises(RunError, match=r"^GPU 0: .*40"):
        cache_features(data, extractor, tmp_path / "cache", devices="all")


def test_an_interrupt_ends_the_processes(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[EngineProcess] = []
    begin = EngineProcess.__init__

    def remember(self: EngineProcess, *arguments: Any) -> None:
        begin(self, *arguments)
        started.append(self)

    def interrupt(state: features.Pass) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EngineProcess, "__init__", remember)
    monkeypatch.setattr(features, "chosen_gpus", lambda devices, extractor: TWO)
    with pytest.raises(KeyboardInterrupt):
        cache_features(
            folder(tmp_path / "photos"), extractor, tmp_path / "cache", batch=2, devices="all",
            on_progress=interrupt,
        )  # fmt: skip
    assert len(started) == 2
    assert all(process._process.returncode is not None for process in started)


def test_a_cpu_engine_takes_no_devices(extractor: Extractor, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos")
    with raises_golden(UsageError, "caft/devices-of-a-cpu-engine"):
        cache_features(data, extractor, tmp_path / "cache", devices=(0,))
    assert not (tmp_path / "cache").exists()


class OnGpu:
    """What a session on a GPU has."""

    device = image_type = pipeline = ""


TWO_OF_THREE = "0, GPU-aa, 8.0, 80000\n1, GPU-bb, 9.0, 80000\n2, GPU-cc, 8.0, [N/A]\n"


@pytest.mark.parametrize(
    ("devices", "visible", "uuids"),
    [
        ("all", None, ["GPU-aa", "GPU-cc"]),
        ("all", "2,1", ["GPU-cc"]),
        ((0,), "GPU-c", ["GPU-cc"]),
        ((2, 0), None, ["GPU-cc", "GPU-aa"]),
        ((0, 0), None, ["GPU-aa", "GPU-aa"]),
    ],
)
def test_the_gpus_of_an_engine(
    devices: Any,
    visible: str | None,
    uuids: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = chosen_gpus(devices, on_sm80(), lambda command: TWO_OF_THREE)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found.values()] == uuids


def on_sm80() -> Any:
    extractor = toy()
    inputs = extractor.record.inputs.model_copy(update={"archs": ("sm80",)})
    extractor.record = extractor.record.model_copy(
        update={"inputs": inputs, "targets": ("sm80-trt8.6-fp16",)}
    )
    extractor.session = OnGpu()  # type: ignore[assignment]
    return extractor


@pytest.mark.parametrize("devices", [(1,), (0, 3)])
def test_gpus_that_the_engine_does_not_run_on(
    devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with raises_golden(UsageError, f"caft/gpu-{devices[-1]}-does-not-fit"):
        chosen_gpus(devices, on_sm80(), lambda command: TWO_OF_THREE)


class Sink:
    """What an extractor on a GPU has, where the GPU prepares nothing."""

    @contextmanager
    def lend(self, rows: int) -> Iterator[None]:
        yield None

    def close(self) -> None:
        pass


class Watched:
    """What the processes of a pass did.

    Attributes:
        names: Those that were started.
        results: Batches that each of them returned.
        over: Whether all are ready, or one failed.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.results: Counter[str] = Counter()
        self.over = threading.Event()

    def wait(self, state: features.Pass) -> None:
        """Has a pass go on only once the processes are ready."""
        assert self.over.wait(60)


@pytest.fixture
def watched(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Has a pass over ten files or more count as long, and watches the processes that start."""
    extractor.preparers = Sink()  # type: ignore[assignment]
    watched = Watched()
    begin, receive, wait = EngineProcess.__init__, EngineProcess.receive, Starting.wait

    def begin_watched(self: EngineProcess, task: Any, name: str, *rest: Any) -> None:
        watched.names.append(name)
        begin(self, task, name, *rest)

    def receive_watched(self: EngineProcess) -> Any:
        watched.results[self._name] += 1
        return receive(self)

    def wait_watched(self: Starting) -> Any:
        try:
            return wait(self)
        finally:
            threading.Timer(0.2, watched.over.set).start()  # once the caller knows

    monkeypatch.setattr(EngineProcess, "__init__", begin_watched)
    monkeypatch.setattr(EngineProcess, "receive", receive_watched)
    monkeypatch.setattr(Starting, "wait", wait_watched)
    monkeypatch.setattr(open_runs, "LONG_PASS", 10)
    monkeypatch.setattr(open_runs, "own_gpu", lambda extractor: {"GPU 0": {}})
    monkeypatch.setattr(open_runs, "idle_gpus", lambda extractor: {"GPU 0": {}})
    monkeypatch.setattr(
        open_runs, "doubled", lambda processes, *rest: {**processes, "GPU 0 (2)": {}}
    )
    return watched


def test_a_long_pass_goes_on_in_two_processes(
    watched: Watched, extractor: Extractor, tmp_path: Path
) -> None:
    data = folder(tmp_path / "photos", each=30)
    cache_features(data, extractor, tmp_path / "one", batch=4, decode="pillow")
    assert watched.names == []
    card, state = cache_features(
        data, extractor, tmp_path / "two", batch=4, on_progress=watched.wait
    )
    assert watched.names == ["GPU 0", "GPU 0 (2)"]
    assert all(watched.results[name] > 3 for name in watched.names)
    assert sum(watched.results.values()) < 90 / 4 - 1  # the first batches ran here
    assert (card.samples, state.images, card.complete) == (90, 90, True)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    for number in range(5):
        photo(number, (40, 44)).save(data / "class0" / f"new{number}.png")
    _, state = cache_features(data, extractor, tmp_path / "two", batch=4)
    assert (len(watched.names), state.images) == (2, 5)  # five files are not worth processes


def test_a_pass_that_is_over_before_its_processes_are_ready(
    watched: Watched, extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int | None] = []
    close = EngineProcess.close

    def close_watched(self: EngineProcess) -> None:
        close(self)
        ended.append(self._process.returncode)

    monkeypatch.setattr(EngineProcess, "close", close_watched)
    data = folder(tmp_path / "photos", each=4)
    card, _ = cache_features(data, extractor, tmp_path / "cache", batch=4)
    assert (card.samples, card.complete, watched.results) == (12, True, {})
    assert ended == [-signal.SIGKILL] * 2


def test_a_long_pass_whose_processes_fail_runs_here(
    watched: Watched, extractor: Extractor, tmp_path: Path
) -> None:
    data = folder(tmp_path / "photos", each=20)
    cache_features(data, extractor, tmp_path / "one", batch=4, decode="pillow")
    extractor.file = tmp_path / "gone.onnx"
    card, _ = cache_features(data, extractor, tmp_path / "here", batch=4, on_progress=watched.wait)
    assert len(watched.names) == 2
    assert (card.complete, watched.results) == (True, {})
    assert files(tmp_path / "here") == files(tmp_path / "one")


def test_processes_that_were_asked_for_and_fail_end_the_pass(
    watched: Watched, extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "photos", each=20)
    monkeypatch.setattr(features, "chosen_gpus", lambda devices, extractor: {"GPU 0": {}})
    extractor.file = tmp_path / "gone.onnx"
    with pytest.raises(RunError, match=r"^GPU 0: "):
        cache_features(
            data, extractor, tmp_path / "here", batch=4, devices=(0,), on_progress=watched.wait
        )
    assert len(FeatureCache(tmp_path / "here", check_complete=False).labels) > 3


@pytest.mark.parametrize(
    ("each", "names"),
    [
        (3, []),  # fewer files than a long pass has
        (6, ["GPU 0", "GPU 0 (2)"]),
        (9, ["GPU 0", "GPU 1", "GPU 0 (2)"]),
    ],
)
def test_a_long_pass_uses_idle_gpus(
    watched: Watched,
    extractor: Extractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    each: int,
    names: list[str],
) -> None:
    """One for every ten files here; there are three classes."""
    monkeypatch.setattr(open_runs, "idle_gpus", lambda extractor: {"GPU 0": {}, "GPU 1": {}})
    data = folder(tmp_path / "photos", each=each)
    card, _ = cache_features(data, extractor, tmp_path / "cache", batch=4)
    assert watched.names == names
    assert (card.samples, card.complete) == (3 * each, True)


def test_images_in_memory_start_no_processes(
    watched: Watched, extractor: Extractor, tmp_path: Path
) -> None:
    data = [(photo(number), number % 2) for number in range(30)]
    cache_features(data, extractor, tmp_path / "cache", batch=4)
    assert watched.names == []


def test_a_source_that_fails_while_it_is_counted(
    watched: Watched, extractor: Extractor, tmp_path: Path
) -> None:
    paths = sorted(folder(tmp_path / "photos", each=7).rglob("*.png"))

    class Source:
        def __iter__(self) -> Iterator[Sample]:
            for number, path in enumerate(paths[:8]):
                yield Sample(name=str(number), label="a", read=FileRead(path))
            raise DatasetError("cut off")

    with pytest.raises(DatasetError):
        cache_features(Source(), extractor, tmp_path / "cache", batch=4)
    assert len(FeatureCache(tmp_path / "cache", check_complete=False).labels) == 8


def test_the_gpu_that_an_engine_is_loaded_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    extractor = on_sm80()
    extractor.session.device = SimpleNamespace(uuid="cc")
    found = own_gpu(extractor, lambda command: TWO_OF_THREE)
    assert found == {"GPU 2": {"CUDA_VISIBLE_DEVICES": "GPU-cc"}}
    extractor.session.device = SimpleNamespace(uuid="of-an-instance")
    assert own_gpu(extractor, lambda command: TWO_OF_THREE) == {}


def test_idle_gpus_are_those_with_room_that_the_engine_runs_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    extractor = on_sm80()
    extractor.session.device = SimpleNamespace(uuid="dd")
    listed = TWO_OF_THREE + "3, GPU-dd, 8.0, 9000\n4, GPU-ee, 8.0, 9000\n5, GPU-ff, 8.0, 13000\n"
    assert list(idle_gpus(extractor, lambda command: listed)) == ["GPU 3", "GPU 0", "GPU 5"]
    extractor.session.device = SimpleNamespace(uuid="of-an-instance")
    assert idle_gpus(extractor, lambda command: listed) == {}


@pytest.mark.parametrize(
    ("used", "workers", "installed", "twice"),
    [
        (["GPU-aa"], 4, True, True),
        (["GPU-aa", "GPU-bb"], 8, True, True),
        (["GPU-aa", "GPU-bb"], 7, True, False),  # cores
        (["GPU-aa"], 4, False, False),  # nothing decodes there
        (["GPU-cc"], 4, True, False),  # it does not tell its memory
        (["GPU-aa", "GPU-aa"], 16, True, False),  # it has two
    ],
)
def test_a_gpu_has_two_processes_where_there_is_room(
    used: list[str],
    workers: int,
    installed: bool,
    twice: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvjpeg, "installed", lambda: installed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    processes = {f"GPU {n}": {"CUDA_VISIBLE_DEVICES": uuid} for n, uuid in enumerate(used)}
    found = doubled(processes, on_sm80(), workers, lambda command: TWO_OF_THREE)
    expected = [uuid for uuid in used for _ in range(2)] if twice else used
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found.values()] == expected


def test_a_gpu_with_little_memory_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "installed", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    processes = {"GPU 0": {"CUDA_VISIBLE_DEVICES": "GPU-aa"}}
    found = doubled(processes, on_sm80(), 8, lambda command: "0, GPU-aa, 8.0, 12000")
    assert list(found) == ["GPU 0"]
