"""Verdicts: which precision the zoo advises, in words."""

from __future__ import annotations

from typing import Any

from support.goldens import assert_golden
from support.records import (
    benchmark,
    disabled_cell,
    engine_entry,
    machine,
    model_index,
    timed_batch,
    verification,
    verified_batch,
)

from zoo.client.recommendation import kept, verdicts
from zoo.schema.index import BenchmarkSummary, DisabledCell, EngineEntry
from zoo.schema.records import Advice

MIXED = Advice(kept=("blocks.0.0.conv_dw", "conv_stem"), operators=49, kept_work=0.13)


def engine(target: str, rate: float | None = None, **changes: Any) -> EngineEntry:
    found = {
        "precision": target.split("-")[2],
        "verification": verification(
            verified_batch(worst_cosine=0.9961, worst_relative_error=0.09)
        ),
        "benchmark": None
        if rate is None
        else benchmark(timed_batch(4, images_per_second=rate), machine=machine(cpu="one")),
        **changes,
    }
    return engine_entry(target).model_copy(update=found)


def said(*engines: EngineEntry, disabled: tuple[DisabledCell, ...] = ()) -> dict[str, str]:
    model = model_index(*engines).model_copy(update={"disabled": disabled})
    found = verdicts(model)
    assert list(found) == ["cpu-ort1.32"]
    return found["cpu-ort1.32"]


def test_a_faster_engine_is_advised_with_its_numbers() -> None:
    words = said(engine("cpu-ort1.32-fp32", 10.0), engine("cpu-ort1.32-int8", 16.0))
    assert_golden("client/recommended", words["int8"])


def test_a_slower_engine_is_not() -> None:
    words = said(engine("cpu-ort1.32-fp32", 10.0), engine("cpu-ort1.32-int8", 8.0))
    assert "0.80 times as fast" in words["int8"]
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


def test_speeds_of_two_machines_are_not_compared() -> None:
    other = BenchmarkSummary.model_validate(
        {
            "batches": [{"batch": 4, "latency_ms": 1.0, "images_per_second": 99.0}],
            "machine": {"cpu": "another"},
        }
    )
    low = engine("cpu-ort1.32-int8", 16.0).model_copy(update={"benchmark": other})
    words = said(engine("cpu-ort1.32-fp32", 10.0), low)
    assert "times as fast" not in words["int8"]


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
