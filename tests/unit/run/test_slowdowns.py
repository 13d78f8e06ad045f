"""What nightly calls a slowdown: a ratio to PyTorch, or a latency, that is worse beyond noise."""

from __future__ import annotations

from typing import Any

import pytest
from support.fake_nights import LABEL
from support.records import (
    benchmark,
    comparison,
    engine_entry,
    machine,
    model_index,
    timed_batch,
)

from builders.run import regressions
from zoo.catalog.night import NightlyRun
from zoo.catalog.site_report import worst_drifts
from zoo.schema.index import ModelIndex


def beside_pytorch(ratio: float | None, spread: float = 0.01, pytorch: str = "torch 2",
                   cpu: str = "one", ms: float = 1.0) -> ModelIndex:  # fmt: skip
    """An index whose engine was timed alone, and in turns with PyTorch if there is a ratio."""
    times = timed_batch(1, ms, interval_ms=(ms * 0.99, ms * 1.01))
    measured: dict[str, Any] = {"benchmark": benchmark(times, machine=machine(cpu=cpu))}
    if ratio is not None:
        row: dict[str, Any] = {"batch": 1, "engine_ms": 1.0, "pytorch_ms": ratio, "ratio": ratio}
        if spread:
            row["ratio_interval"] = (ratio * (1 - spread), ratio * (1 + spread))
        measured["comparison"] = comparison(row, machine=machine(cpu=cpu), pytorch=pytorch)
    return model_index(engine_entry(LABEL, **measured))


@pytest.mark.parametrize(
    ("before", "after", "measures"),
    [
        (beside_pytorch(2.0), beside_pytorch(1.5), {"ratio"}),
        (beside_pytorch(2.0), beside_pytorch(1.9), set()),  # less than 10% apart
        (beside_pytorch(2.0, 0.2), beside_pytorch(1.5), set()),  # within noise
        (beside_pytorch(2.0), beside_pytorch(1.5, 0.3), set()),
        # The machine was slow in one night: the latency says so, and the ratio knows better.
        (beside_pytorch(2.0), beside_pytorch(2.0, ms=10.0), set()),
        # Another PyTorch is another reference; then the latency decides, as for older records.
        (beside_pytorch(2.0), beside_pytorch(1.5, pytorch="torch 3"), set()),
        (beside_pytorch(2.0), beside_pytorch(1.5, pytorch="torch 3", ms=2.0), {"latency"}),
        (beside_pytorch(None), beside_pytorch(2.0, ms=2.0), {"latency"}),
        (beside_pytorch(2.0, 0), beside_pytorch(1.0), set()),  # an older version's ratio
        (beside_pytorch(2.0, 0), beside_pytorch(1.0, ms=2.0), {"latency"}),
        (beside_pytorch(2.0), beside_pytorch(1.0, cpu="two", ms=9.0), set()),  # another machine
    ],
)
def test_ratios_are_compared_before_latencies(
    before: ModelIndex, after: ModelIndex, measures: set[str]
) -> None:
    found = regressions.regressions({before.model: before}, [after])
    assert {change.measure for change in found} == measures


def test_a_ratio_that_fell_is_in_the_issue_and_in_the_report() -> None:
    before, after = beside_pytorch(2.0), beside_pytorch(1.5)
    (fall,) = regressions.regressions({before.model: before}, [after])
    run = NightlyRun(started="2026-01-02T02:00:00Z", finished="", regressions=(fall,))
    text = regressions.issue(run)
    assert text is not None
    assert "| ratio | 1 | 2.00 times | 1.50 times | -25.0% |" in text[1]
    slower = fall.model_copy(update={"measure": "latency", "before": 1.0, "after": 1.1})
    better = fall.model_copy(update={"before": 1.5, "after": 2.0, "record": "f" * 64})
    assert worst_drifts([better, slower, fall]) == [fall, slower, better]
