"""The price of portability: engines in turns, what fails becomes a note, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.studies import portability
from benchmarks.studies.portability import AGAIN, FORMS, OWN, Study, compared, in_rounds
from benchmarks.studies.speed import Timed
from builders.backends import get_backend
from builders.backends.base import Facts
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import BatchRange, Preprocess
from zoo.schema.precisions import Precision
from zoo.schema.runtimes import Runtime
from zoo.schema.targets import Toolchain
from zoo.util.errors import BuildError, UsageError

TENSORRT = Toolchain(kind=Runtime.TRT, version="8.6.0", cuda=12, os="linux", machine="x86_64")
IMAGENET = Preprocess(
    input_size=224, crop=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


class Engine:
    """A session whose runs take a constant time."""

    profiles = (BatchRange(min=1, opt=64, max=64),)

    def __init__(self, ms: float) -> None:
        self._ms = ms

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def time_on_device(
        self, batch: int, profile: int, runs: int, *, cuda_graph: bool = True
    ) -> list[float]:
        return [self._ms * batch] * runs

    def features(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        features: npt.NDArray[np.float32] = images.mean((2, 3))
        return features


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose builder refuses what is version-compatible, and whose second engine is slow."""
    real = get_backend(Runtime.TRT)

    class Backend:
        def options(self, *arguments: Any) -> Any:
            return real.options(*arguments)

        def build(self, onnx: Path, inputs: Any, engine: Path, **_: Any) -> Facts:
            if inputs.options["version_compatible"]:
                raise BuildError("no lean runtime")
            engine.write_bytes(b"ftrt" * 256)
            return Facts()

    def opened(engine: Path, inputs: Any) -> Engine:
        return Engine(2.0 if "again" in engine.name else 1.0)

    monkeypatch.setattr(portability, "get_backend", lambda kind: Backend())
    monkeypatch.setattr(portability, "open_session", opened)
    network = tmp_path / "fp16-ours.onnx"
    network.write_bytes(b"onnx")
    what = Timed(
        model="toy", precision=Precision.FP16, way="ours", parameters=9, preprocess=IMAGENET
    )
    return Study(network, what, TENSORRT, "sm90", (1, 64), tmp_path / "toy.portability.json")


def test_every_form_is_built_or_has_a_note(study: Study, tmp_path: Path) -> None:
    study.run(list(FORMS), deadline=float("inf"))
    built = {one.form: one for one in study.price.engines}
    assert list(built) == list(FORMS)
    assert [form for form, one in built.items() if one.engine] == [OWN, "Ampere and later", AGAIN]
    assert built["version-compatible"].note == "no lean runtime"
    assert "same_compute_capability" in built["same compute capability"].note  # 8.6 has none
    ratios = {form: [turns.ratio for turns in one.turns] for form, one in built.items()}
    assert ratios[OWN] == ratios["Ampere and later"] == [1.0, 1.0]
    assert ratios[AGAIN] == [2.0, 2.0]
    written = (tmp_path / "toy.portability.json").read_text()
    assert portability.Price.model_validate_json(written) == study.price
    table = portability.to_markdown([study.price]).splitlines()
    assert len(table) == 2 + 3 * 2 + 2
    assert table[8].endswith("| 1 | 2 | 2.000 (2.000 to 2.000) |  |")


def test_after_the_deadline_nothing_is_built(study: Study) -> None:
    study.run([OWN, AGAIN], deadline=float("-inf"))
    assert [one.engine for one in study.price.engines] == [None, None]
    assert all(one.note for one in study.price.engines)


def test_an_engine_that_does_not_open_does_not_stop_the_others(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(engine: Path, inputs: Any) -> Engine:
        if "again" in engine.name:
            raise BuildError("not an engine")
        return Engine(1.0)

    monkeypatch.setattr(portability, "open_session", opened)
    study.run([OWN, AGAIN], deadline=float("inf"))
    own, again = study.price.engines
    assert [turns.batch for turns in own.turns] == [1, 64]
    assert (again.note, again.turns) == ("not an engine", ())


def test_features_are_compared_with_golden_ones_beside_the_network(
    study: Study, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    features = normalise(images, IMAGENET).mean((2, 3))
    np.savez(tmp_path / "golden.npz", images=images, features=features)
    study.run([OWN], deadline=float("inf"))
    [own] = study.price.engines
    assert own.worst_cosine == pytest.approx(1)
    assert len(own.turns) == 2


def test_rounds_begin_with_another_engine_each() -> None:
    calls: list[str] = []

    def timer(form: str) -> portability.Time:
        def run(batch: int, runs: int) -> Sequence[float]:
            calls.append(form)
            return [1.0] * runs

        return run

    times = in_rounds({form: timer(form) for form in "abc"}, 1, rounds=3)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {form: len(own) for form, own in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_what_slows_a_whole_round_leaves_the_ratio() -> None:
    turns = compared({"a": (1.0, 3.0) * 3, "b": (1.5, 4.5) * 3}, 1)
    assert (turns["b"].ratio, turns["b"].ratio_interval) == (1.5, (1.5, 1.5))


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_batch_size_is_a_positive_number(text: str) -> None:
    with pytest.raises(UsageError):
        portability.parse_batch(text)
