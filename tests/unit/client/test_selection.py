"""Which engine a machine gets, as a function of data."""

from __future__ import annotations

from typing import Any

import pytest
from support.goldens import assert_golden, raises_golden
from support.records import benchmark, engine_entry, model_index, timed_batch, toolchain

from zoo.client.selection import Machine, fit, select, why
from zoo.util.errors import SelectionError

TRT = toolchain("trt", "11.4.0.13", cuda=13)
RTX, ORT = toolchain("rtx", "1.7.1.116"), toolchain("ort", "1.32.0")
AMPERE = Machine(archs=("sm86", "cpu"), toolchains=(ORT, RTX))
LAPTOP = Machine(archs=("cpu",), toolchains=(ORT,))

CPU = engine_entry("cpu-ort1.32-fp32")
FP32, FP16 = engine_entry("sm86-rtx1.7-fp32"), engine_entry("sm86-rtx1.7-fp16")


def chosen(machine: Machine, *engines: Any, **options: Any) -> str:
    return select(model_index(*engines), machine, **options).targets[0]


def test_the_gpu_comes_before_the_cpu_and_low_precision_first() -> None:
    assert chosen(AMPERE, CPU, FP32, FP16) == "sm86-rtx1.7-fp16"
    assert chosen(AMPERE, CPU, FP32) == "sm86-rtx1.7-fp32"
    assert chosen(LAPTOP, CPU, FP32, FP16) == "cpu-ort1.32-fp32"


def test_an_engine_of_several_architectures_fits_each() -> None:
    shared = engine_entry("sm80-rtx1.7-fp16", "sm86-rtx1.7-fp16")
    assert select(model_index(shared), AMPERE) == shared


@pytest.mark.parametrize(
    ("changed", "what", "fact"),
    [
        ({"status": "pending", "reason": "not run"}, "pending", "--allow-pending"),
        ({"status": "withdrawn", "reason": "row 3"}, "withdrawn", "row 3"),
        ({"dry_run": True}, "seeded", "--allow-seeded"),
        ({"toolchain": toolchain("ort", "1.33.0")}, "version", r"ONNX Runtime 1\.33\.0"),
        ({"toolchain": {**ORT.model_dump(), "os": "windows"}}, "system", "windows"),
    ],
)
def test_what_does_not_fit_says_why(changed: dict[str, Any], what: str, fact: str) -> None:
    with raises_golden(SelectionError, f"client/no-fit-{what}", match=fact) as caught:
        select(model_index(engine_entry("cpu-ort1.32-fp32", **changed)), LAPTOP)
    builds = not fact.startswith("--") and what != "withdrawn"
    assert ("make zoo MODELS=m GPU=cpu" in str(caught.value)) == builds


def test_what_this_version_does_not_know_is_passed_over() -> None:
    future = engine_entry(
        "cpu-ort1.32-fp32",
        targets=["cpu-new9.1-fp2"],
        toolchain={**ORT.model_dump(), "kind": "new", "version": "9.1"},
    )
    assert chosen(LAPTOP, future, CPU) == "cpu-ort1.32-fp32"
    with raises_golden(SelectionError, "client/unknown-runtime", match=r"new 9\.1"):
        chosen(LAPTOP, future)


def test_a_machine_without_the_gpu_is_told_which() -> None:
    with raises_golden(SelectionError, "client/no-gpu", match="sm86.*cpu"):
        select(model_index(FP16), LAPTOP)


def test_onnxruntime_reads_older_models_and_tensorrt_does_not() -> None:
    newer = Machine(archs=("cpu",), toolchains=(toolchain("ort", "1.100.1"),))
    assert chosen(newer, CPU) == "cpu-ort1.32-fp32"
    other = Machine(archs=("sm86",), toolchains=(toolchain("rtx", "1.7.1.200"),))
    with raises_golden(SelectionError, "client/other-version", match=r"1\.7\.1\.116"):
        select(model_index(FP16), other)


def test_a_target_by_label_is_for_another_machine() -> None:
    assert chosen(LAPTOP, CPU, FP16, target="sm86-rtx1.7-fp16") == "sm86-rtx1.7-fp16"
    with raises_golden(SelectionError, "client/no-target", match=r"'sm86-rtx1\.7-fp16'"):
        chosen(LAPTOP, FP16, target="sm89-rtx1.7-fp16")


def test_what_is_asked_for_is_given() -> None:
    pending = engine_entry("cpu-ort1.32-fp32", status="pending", dry_run=True)
    assert chosen(LAPTOP, pending, allow_pending=True, allow_seeded=True) == "cpu-ort1.32-fp32"


def test_an_engine_for_another_cuda_does_not_fit() -> None:
    twelve, thirteen = (toolchain("rtx", "1.7.1.116", cuda=cuda) for cuda in (12, 13))
    one = engine_entry("sm86-rtx1.7-fp16", toolchain=twelve.model_dump(mode="json"))
    assert fit(one, Machine(archs=("sm86", "cpu"), toolchains=(twelve,)))[1] is None
    why = fit(one, Machine(archs=("sm86", "cpu"), toolchains=(thirteen,)))[1]
    assert why is not None
    assert_golden("client/other-cuda", why)


def trt(label: str, **changes: Any) -> Any:
    return engine_entry(label, **{"toolchain": TRT.model_dump(mode="json"), **changes})


EVERYTHING = Machine(archs=("sm86", "cpu"), toolchains=(ORT, RTX, TRT))
IN_ORDER = [
    trt("sm86-trt11.4-fp16"),
    trt("sm86-trt11.4-fp32"),
    engine_entry("sm86-rtx1.7-fp16"),
    engine_entry("sm86-rtx1.7-fp32"),
    engine_entry("sm80-rtx1.7-fp16", "sm86-rtx1.7-fp16"),
    engine_entry("cpu-ort1.32-fp32"),
    engine_entry("cpu-ort1.30-fp32", toolchain=toolchain("ort", "1.30.0")),
    engine_entry("cpu-ort1.32-int8"),
]
"""As documented; int8 is last of all that fits, whatever built it."""


@pytest.mark.parametrize("best", range(len(IN_ORDER) - 1))
def test_the_order_is_the_documented_one(best: int) -> None:
    left = IN_ORDER[best:-1]
    assert select(model_index(*reversed(left)), EVERYTHING) == left[0]


def timed(precision: str, milliseconds: float, gpu: str = "A10") -> Any:
    """Returns an engine whose latency at batch 8 is known to 2%."""
    interval = (0.98 * milliseconds, 1.02 * milliseconds)
    return engine_entry(
        f"sm86-rtx1.7-{precision}",
        benchmark=benchmark(
            timed_batch(8, milliseconds, interval_ms=interval), machine={"gpu": {"name": gpu}}
        ),
    )


@pytest.mark.parametrize(
    ("engines", "best"),
    [
        ([timed("fp16", 4), timed("fp32", 2)], "fp32"),  # known to be faster
        ([timed("fp16", 2), timed("fp32", 4)], "fp16"),
        ([timed("fp16", 4), timed("fp32", 3.9)], "fp16"),  # within noise
        ([timed("fp16", 4), FP32], "fp16"),  # not measured
        ([timed("fp16", 4), timed("fp32", 2, gpu="RTX 3080")], "fp16"),  # on another GPU
        ([timed("fp16", 4), timed("bf16", 2), timed("fp32", 3)], "bf16"),
        ([timed("fp32", 4), timed("int8", 1)], "fp32"),  # faster and less accurate
        ([timed("int8", 4)], "int8"),
    ],
)
def test_of_precisions_the_one_that_is_known_to_be_faster_is_taken(
    engines: list[Any], best: str
) -> None:
    assert chosen(AMPERE, *engines) == chosen(AMPERE, *reversed(engines)) == f"sm86-rtx1.7-{best}"


def test_a_faster_precision_does_not_outweigh_what_comes_before_it() -> None:
    shared = timed("fp32", 1).model_copy(
        update={"targets": ("sm80-rtx1.7-fp32", "sm86-rtx1.7-fp32")}
    )
    old = timed("fp32", 1).model_copy(update={"superseded": "2026-01-01T00:00:00.000000Z"})
    for other in (shared, old):
        assert chosen(AMPERE, timed("fp16", 4), other) == "sm86-rtx1.7-fp16"


def test_a_driver_that_is_too_old_is_noticed_before_a_download() -> None:
    rtx = RTX.model_copy(update={"cuda": 13})
    of_rtx = engine_entry("sm86-rtx1.7-fp16", toolchain=rtx.model_dump(mode="json"))
    old, new = (
        Machine(archs=("sm86", "cpu"), toolchains=(ORT, rtx), driver=driver)
        for driver in ("550.54.15", "580.65.06")
    )
    assert chosen(new, of_rtx, CPU) == "sm86-rtx1.7-fp16"
    assert chosen(old, of_rtx, CPU) == "cpu-ort1.32-fp32"
    with pytest.raises(SelectionError) as caught:
        chosen(old, of_rtx)
    assert all(fact in caught.value.message for fact in ("580", "CUDA 13", "550.54.15"))
    assert_golden("client/old-driver", caught.value)
    twelve = TRT.model_copy(update={"cuda": 12})
    older = engine_entry("sm86-trt11.4-fp16", toolchain=twelve.model_dump(mode="json"))
    assert fit(older, Machine(archs=("sm86",), toolchains=(twelve,), driver="550.1"))[1] is None


def test_int8_is_taken_when_nothing_else_fits_or_it_is_asked_for() -> None:
    exact, int8 = IN_ORDER[5], IN_ORDER[-1]
    assert select(model_index(int8, exact), LAPTOP) == exact
    assert select(model_index(int8, exact), LAPTOP, precision="int8") == int8


def test_when_nothing_fits_it_says_what_would() -> None:
    here = Machine(
        archs=("sm89", "cpu"),
        toolchains=(ORT, TRT.model_copy(update={"version": "10.16.1.1"})),
    )
    command = "make zoo MODELS=m GPU=sm89"
    with raises_golden(SelectionError, "client/closest", match=command):
        select(model_index(trt("sm86-trt11.4-fp16")), here)
    nearer = trt("sm89-trt11.4-fp16")
    with raises_golden(SelectionError, "client/closest-of-two", match=r"sm89-trt11\.4-fp16"):
        select(model_index(trt("sm86-trt11.4-fp16"), nearer), here)


def test_what_to_do_is_about_what_was_asked_for() -> None:
    withdrawn = engine_entry("cpu-ort1.32-fp32", status="withdrawn", reason="row 3")
    for asked in ({}, {"target": "cpu-ort1.32-fp32"}):
        golden = f"client/withdrawn-{'target' if asked else 'any'}"
        with raises_golden(SelectionError, golden, match=r"cpu-ort1\.32-fp32: .*row 3"):
            select(model_index(withdrawn), LAPTOP, **asked)
    command = "make zoo MODELS=m GPU=cpu PRECISION=int8"
    with raises_golden(SelectionError, "client/no-int8", match=command):
        select(model_index(CPU), LAPTOP, precision="int8")


def test_what_was_picked_is_said_with_the_reason() -> None:
    older = engine_entry("cpu-ort1.30-fp32", toolchain=toolchain("ort", "1.30.0"))
    assert_golden("client/why-exact", why(CPU, LAPTOP, model_index(CPU)))
    assert_golden("client/why-older", why(older, LAPTOP, model_index(older)))
    assert_golden("client/why-by-label", why(FP16, LAPTOP, model_index(FP16)))
    slow, fast = timed("fp16", 4), timed("fp32", 2)
    assert_golden("client/why-faster", why(fast, AMPERE, model_index(slow, fast)))
    nearly = timed("fp32", 3.9)
    assert_golden("client/why-first", why(slow, AMPERE, model_index(slow, nearly)))
