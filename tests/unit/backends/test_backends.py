"""The two backends on a real ONNX, and the header of TensorRT-RTX engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.goldens import raises_golden
from support.installed import installed_inputs
from support.paths import DATA
from support.records import toolchain

from builders.backends import get_backend
from builders.backends.tensorrt_api import TensorRTOptions
from builders.backends.tensorrt_rtx import check_header
from builders.precision import to_low
from zoo.runtime import open_session
from zoo.runtime.header import Header
from zoo.schema.closed import Unknown
from zoo.util.errors import BuildError, RunError, TargetError, UsageError

TOY = DATA / "toy.onnx"


def test_onnxruntime_builds_what_the_session_runs(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    facts = get_backend("ort").build(TOY, installed_inputs("ort", "cpu"), engine, parameters=216)
    assert facts.precision_proven
    with open_session(engine, installed_inputs("ort", "cpu")) as session:
        assert session.input_shape == (3, 32, 32)
        images = np.random.default_rng(1).standard_normal((19, 3, 32, 32)).astype(np.float32)
        features = session.features(images)
        assert features.shape == (19, 8)
        assert np.allclose(session.features(images[:1]), features[:1], atol=1e-6)
        with raises_golden(RunError, "backends/images-of-another-size", match="16, 16"):
            session.features(images[:1, :, :16, :16])
        with pytest.raises(RunError, match="float64"):
            session.features(images.astype(np.float64))  # type: ignore[arg-type]
        with raises_golden(RunError, "backends/images-in-a-list"):
            session.features([images[0]])  # type: ignore[arg-type]
    with raises_golden(RunError, "backends/closed-session"):
        session.features(images)


def test_an_fp16_model_is_no_fp32_engine(tmp_path: Path) -> None:
    typed = tmp_path / "typed.onnx"
    onnx.save(to_low(onnx.load(TOY), "fp16", set()), typed)
    with raises_golden(BuildError, "backends/fp16-weights", match="fp32"):
        get_backend("ort").build(
            typed, installed_inputs("ort", "cpu"), tmp_path / "engine", parameters=216
        )


def test_what_is_no_engine_is_a_sentence(tmp_path: Path) -> None:
    for runtime in (installed_inputs("ort", "cpu"), installed_inputs("rtx", "sm86")):
        with raises_golden(RunError, "backends/no-engine-file"):
            open_session(tmp_path / "engine", runtime, 13)
    (tmp_path / "engine").write_bytes(b"not an engine")
    with raises_golden(RunError, "backends/engine-cut-short", match=r"\b13\b.*\b14\b"):
        open_session(tmp_path / "engine", installed_inputs("ort", "cpu"), 14)
    with pytest.raises(RunError, match=str(tmp_path / "engine")):  # and what ONNX Runtime says
        open_session(tmp_path / "engine", installed_inputs("ort", "cpu"))
    with raises_golden(RunError, "backends/no-header"):
        open_session(tmp_path / "engine", installed_inputs("rtx", "sm86"))


RTX: dict[str, Any] = {
    "kind": "rtx",
    "version": "1.7.1.116",
    "length": 500,
    "archs": ("sm86", "sm89"),
}


@pytest.mark.parametrize(
    ("changed", "length", "what"),
    [
        ({"kind": "trt"}, 500, "runtime"),
        ({"version": "1.7.1.115"}, 500, "version"),
        ({"archs": ("sm86",)}, 500, "archs"),
        ({}, 499, "length"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    changed: dict[str, Any], length: int, what: str
) -> None:
    values = {**RTX, **changed}
    asked = installed_inputs("rtx", "sm86", "sm89")
    asked = asked.model_copy(
        update={"toolchain": asked.toolchain.model_copy(update={"version": "1.7.1.116"})}
    )
    with raises_golden(BuildError, f"backends/header-of-another-{what}"):
        check_header(Header(**values), length, asked)


def test_a_runtime_without_a_backend_is_named() -> None:
    with raises_golden(TargetError, "backends/no-backend", match="mystery"):
        get_backend(Unknown("mystery"))


def options_of(version: str, **requested: str) -> TensorRTOptions:
    chain = toolchain("trt", version, cuda=12)
    options = get_backend("trt").options(chain, requested)
    assert isinstance(options, TensorRTOptions)
    return options


@pytest.mark.parametrize(
    ("version", "level", "typed"),
    [
        ("8.6.0", "none", False),
        ("10.8.0.43", "none", True),
        ("10.13.3.9", "same_compute_capability", True),
        ("11.4.0.106", "same_compute_capability", True),
    ],
)
def test_every_option_of_tensorrt_is_in_the_key(version: str, level: str, typed: bool) -> None:
    assert options_of(version).model_dump(mode="json") == {
        "optimization_level": 3,
        "workspace_gib": 8.0,
        "hardware_compatibility": level,
        "version_compatible": False,
        "tactic_sources": "own",
        "timing_cache": True,
        "strongly_typed": typed,
        "precision_constraints": "none" if typed else "prefer",
        "tf32": False,
    }
    assert options_of(version, optimization_level="5").optimization_level == 5
    assert options_of(version, version_compatible="yes").version_compatible is True
    assert options_of(version, strongly_typed=str(typed)).strongly_typed is typed


def test_tactics_are_in_the_key_where_they_can_be_kept() -> None:
    for version in ("10.13.3.9", "11.4.0.106"):
        assert "tactics" not in options_of(version, tactics="free").model_dump(mode="json")
        recorded = options_of(version, tactics="recorded")
        assert recorded.model_dump(mode="json")["tactics"] == "recorded"
        assert recorded.tactics_lock is None
        assert options_of(version, tactics="a" * 64).tactics_lock == "a" * 64


@pytest.mark.parametrize(
    ("version", "option", "value"),
    [
        ("11.4.0.106", "optimization_level", "9"),
        ("11.4.0.106", "optimisation_level", "5"),
        ("11.4.0.106", "strongly_typed", "no"),
        ("8.6.0", "strongly_typed", "yes"),
        ("11.4.0.106", "precision_constraints", "obey"),
        ("8.6.0", "precision_constraints", "strict"),
        ("8.6.0", "hardware_compatibility", "same_compute_capability"),
        ("8.6.0", "tactics", "recorded"),
        ("8.6.0", "tactics", "locked"),
        ("11.4.0.106", "tactics", "fixed"),
    ],
)
def test_what_a_tensorrt_does_not_take_is_refused(version: str, option: str, value: str) -> None:
    golden = f"backends/trt{version.partition('.')[0]}-{option}-{value}"
    with raises_golden(UsageError, golden, match=option):
        options_of(version, **{option: value})
