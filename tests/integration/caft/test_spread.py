"""A pass over several processes, each with an engine of its own, against one in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import folder, photo, toy
from support.goldens import raises_golden

from zoo.caft import FeatureCache, cache_features, features
from zoo.caft.card import read_card
from zoo.caft.engine_process import EngineProcess
from zoo.caft.labels import LabelError
from zoo.caft.sample import Sample
from zoo.caft.spread import chosen_gpus
from zoo.inference.extractor import Extractor
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
    assert not read_card_of(tmp_path / "cache").complete


def read_card_of(cache: Path) -> Any:
    card = read_card(cache)
    assert card is not None
    return card


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


TWO_OF_THREE = "0, GPU-aa, 8.0\n1, GPU-bb, 9.0\n2, GPU-cc, 8.0\n"


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
