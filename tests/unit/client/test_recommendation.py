"""Verdicts: which precision the zoo advises, in words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.goldens import assert_golden
from support.records import (
    benchmark,
    comparison,
    disabled_cell,
    engine_entry,
    machine,
    model_index,
    timed_batch,
    verification,
    verified_batch,
)

from zoo.client.recommendation import kept, verdicts
from zoo.schema.index import DisabledCell, EngineEntry
from zoo.schema.records import Advice

MIXED = Advice(kept=("blocks.0.0.conv_dw", "conv_stem"), operators=49, kept_work=0.13)


def against(ratio: float, spread: float = 0.01, batch: int = 4, cpu: str = "one") -> Any:
    """How many times as fast as PyTorch an engine is, known to a fraction."""
    row = {"batch": batch, "engine_ms": 1.0 / ratio, "pytorch_ms": 1.0, "ratio": ratio}
    interval = (ratio * (1 - spread), ratio * (1 + spread))
    return comparison(
        {**row, "ratio_interval": interval}, machine=machine(cpu=cpu), pytorch="torch 2"
    )


def engine(target: str, ratio: float | None = None, **changes: Any) -> EngineEntry:
    found = {
        "precision": target.split("-")[2],
        "verification": verification(
            verified_batch(worst_cosine=0.9961, worst_relative_error=0.09)
        ),
        "comparison": None if ratio is None else against(ratio),
        **changes,
    }
    return engine_entry(target).model_copy(update=found)


def said(*engines: EngineEntry, disabled: tuple[DisabledCell, ...] = ()) -> dict[str, str]:
    model = model_index(*engines).model_copy(update={"disabled": disabled})
    found = verdicts(model)
    assert list(found) == ["cpu-ort1.32"]
    return {name: str(verdict) for name, verdict in found["cpu-ort1.32"].items()}


def test_a_faster_engine_is_advised_with_its_numbers() -> None:
    words = said(engine("cpu-ort1.32-fp32", 10.0), engine("cpu-ort1.32-int8", 16.0))
    assert_golden("client/recommended", words["int8"])


def test_a_slower_engine_is_not() -> None:
    words = said(engine("cpu-ort1.32-fp32", 10.0), engine("cpu-ort1.32-int8", 8.0))
    assert "0.80 times (0.78 to 0.82) as fast" in words["int8"]
    assert_golden("client/not-recommended", words["int8"])


def test_int8_that_is_slower_than_fp16_is_not_advised() -> None:
    fp32, int8 = engine("cpu-ort1.32-fp32", 10.0), engine("cpu-ort1.32-int8", 16.0)
    words = said(fp32, engine("cpu-ort1.32-fp16", 20.0), int8)
    assert_golden("client/recommended-over-fp32", words["fp16"])
    assert_golden("client/slower-than-fp16", words["int8"])


def test_a_withdrawn_engine_is_not_advised_instead() -> None:
    fp32 = engine("cpu-ort1.32-fp32", 10.0, status="withdrawn", reason="cosine 0.5")
    words = said(fp32, engine("cpu-ort1.32-int8", 8.0))["int8"]
    assert "fp32" not in words
    assert_golden("client/recommended-alone", words)


def of_int8(fp32: EngineEntry, **changes: Any) -> str:
    """What is said of int8 beside an fp32 engine."""
    return said(fp32, engine("cpu-ort1.32-int8", **changes))["int8"]


def test_a_gain_within_noise_is_no_gain() -> None:
    words = of_int8(engine("cpu-ort1.32-fp32", 1.0), comparison=against(1.03, 0.04))
    assert_golden("client/within-noise", words)


def test_a_loss_within_noise_is_no_loss() -> None:
    words = of_int8(engine("cpu-ort1.32-fp32", 1.0), comparison=against(0.97, 0.04))
    assert "instead" not in words
    assert "within noise" in words


OLD = benchmark(timed_batch(4, images_per_second=99.0), machine=machine(cpu="one"))
INTERVALS = benchmark(timed_batch(4, interval_ms=(1.0, 1.0)), machine=machine(cpu="one"))
OLD_RATIO = comparison(
    {"batch": 4, "engine_ms": 1.0, "pytorch_ms": 2.0}, machine=machine(cpu="one"), pytorch="torch 2"
)


@pytest.mark.parametrize(
    "changes",
    [
        {},  # never timed
        {"benchmark": OLD},  # by an older version: no interval
        {"benchmark": INTERVALS},  # latencies of a CPU, which say nothing about another time
        {"comparison": OLD_RATIO},  # without an interval
        {"comparison": against(1.6, cpu="another")},
        {"comparison": against(1.6, batch=16)},  # at another batch size
        {"comparison": against(1.6).model_copy(update={"pytorch": "torch 3"})},  # and PyTorch
    ],
    ids=["never", "old", "latencies", "old-ratio", "machine", "batch", "pytorch"],
)
def test_what_was_not_measured_alike_is_not_told(changes: dict[str, Any]) -> None:
    fp32 = engine("cpu-ort1.32-fp32", 1.0, benchmark=INTERVALS)
    assert_golden("client/speed-not-measured", of_int8(fp32, **changes))


def of_gpu(target: str, ms: float, spread: float, gpu: str = "A GPU") -> EngineEntry:
    row = timed_batch(4, ms, interval_ms=(ms * (1 - spread), ms * (1 + spread)))
    return engine(target, benchmark=benchmark(row, machine=machine(gpu=gpu)))


@pytest.mark.parametrize(
    ("fp16", "words"),
    [
        (of_gpu("sm86-rtx1.7-fp16", 0.5, 0.01), "2.00 times (1.96 to 2.04) as fast as fp32"),
        (of_gpu("sm86-rtx1.7-fp16", 0.98, 0.04), "within noise"),
        (of_gpu("sm86-rtx1.7-fp16", 2.0, 0.01), "use fp32 instead"),
        (of_gpu("sm86-rtx1.7-fp16", 0.5, 0.01, "Another"), "not measured"),
    ],
)
def test_latencies_of_one_kind_of_gpu_are_compared(fp16: EngineEntry, words: str) -> None:
    fp32 = of_gpu("sm86-rtx1.7-fp32", 1.0, 0.01)
    assert words in str(verdicts(model_index(fp32, fp16))["sm86-rtx1.7"]["fp16"])


def test_the_fastest_common_batch_size_is_told() -> None:
    def rows(small: float, large: float) -> Any:
        both = (against(small, batch=1), against(large, batch=16))
        return both[0].model_copy(update={"batches": tuple(b for c in both for b in c.batches)})

    fp32 = engine("cpu-ort1.32-fp32", comparison=rows(1.0, 1.0))
    said = of_int8(fp32, comparison=rows(0.5, 2.0))
    assert re.search(r"\b2\.00\b.*\b1\.96\b.*\b2\.04\b.*\bfp32\b.*\bbatch 16\b", said)


def test_what_is_kept_higher_is_said() -> None:
    mixed = engine("cpu-ort1.32-int8-mixed", advice=MIXED)
    words = kept(mixed)
    assert words is not None
    assert words in said(mixed)["int8"]
    assert_golden("client/kept-operators", words)
    assert kept(engine("cpu-ort1.32-int8", advice=Advice(operators=49))) is None
    many = Advice(kept=tuple("abcdefgh"), operators=49, kept_work=0.4)
    assert "(" not in str(kept(engine("cpu-ort1.32-int8-mixed", advice=many)))


def test_pending_withdrawn_and_missing_ones_are_not_advised() -> None:
    cell = disabled_cell("cpu-ort1.32-bf16", reason="it overflows")
    pending = engine("cpu-ort1.32-fp16", status="pending", verification=None)
    withdrawn = engine("cpu-ort1.32-int8", status="withdrawn", reason="cosine 0.5")
    words = said(pending, withdrawn, disabled=(cell,))
    assert words["bf16"].endswith(": it overflows")
    assert words["int8"].endswith(": cosine 0.5")
    assert_golden("client/unverified", "\n".join(f"{name}: {words[name]}" for name in words))
