"""The ratio of an engine's speed to PyTorch's: a fact, or the reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
from support import records
from support.signed_repository import ROW, TOLERANCE, Signed

from builders.jobs.messages import BuildOutput, Verification
from builders.publish.records import attest_verification
from builders.verify.in_turns import Row, compared, row_of, untimed
from builders.verify.spread import ForeignLoad
from zoo.schema.index import ComparedBatch, ComparisonSummary
from zoo.schema.intervals import quotient, times_as_fast
from zoo.schema.keys import VerificationInputs
from zoo.schema.measurements import ComparedBody

STEADY, SLOW = 1.0, 10.0


class Machine:
    """A machine whose speed changes from call to call, for both alike; without any waiting."""

    def __init__(self, speeds: list[float], others: float = 0.0) -> None:
        self.now, self._speeds, self._others = 0.0, cycle(speeds), others
        self._speed, self._runs = 1.0, 0

    def clock(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += seconds

    def load_of(self, wall: Callable[[], float]) -> ForeignLoad:
        return ForeignLoad(wall, lambda: wall() * (1 + self._others), own=wall, cores=1)

    def _run(self, seconds: float) -> None:
        if self._runs % 2 == 0:  # both turns of a round have the same speed
            self._speed = next(self._speeds)
        self._runs += 1
        self.now += seconds * self._speed

    def engine(self, seconds: Iterator[float]) -> Callable[[], None]:
        return lambda: self._run(next(seconds))

    def pytorch(self, seconds: Iterator[float]) -> Callable[[], None]:
        return lambda: self._run(next(seconds))

    def row(self, engine: list[float], pytorch: list[float], **options: Any) -> Row:
        return row_of(
            4, self.engine(cycle(engine)), self.pytorch(cycle(pytorch)), self.clock, self.rest,
            self.load_of, **options,
        )  # fmt: skip


def test_a_steady_machine_states_the_ratio_and_its_interval() -> None:
    row = Machine([STEADY]).row([0.010, 0.0101], [0.030])
    assert row.noisy is None
    (times,) = compared([row], "torch").batches
    assert times.ratio == pytest.approx(3, rel=0.02)
    assert times.ratio_interval is not None
    low, high = times.ratio_interval
    assert low <= 3.0 <= high * 1.001
    assert times.pytorch_ms == pytest.approx(30)


def test_a_machine_of_two_speeds_changes_times_and_not_the_ratio() -> None:
    """What was 3.0 images/s in one catalog and 44 in another is one ratio."""
    row = Machine([STEADY, SLOW]).row([0.010], [0.030])
    assert row.noisy is None
    assert row.of_ratio.interval == pytest.approx((3, 3))


def test_a_machine_that_slows_down_steadily_favours_neither() -> None:
    """The second of each round is timed on a slower machine than the first."""
    machine = Machine([STEADY])
    start = 2.0  # seconds after which its speed begins to fall

    def run(seconds: float) -> Callable[[], None]:
        def once() -> None:
            machine.now += seconds * (1 + max(0.0, machine.now - start))

        return once

    machine.now = start
    row = row_of(4, run(0.01), run(0.03), machine.clock, machine.rest, machine.load_of)
    assert row.of_ratio.interval is not None
    low, high = row.of_ratio.interval
    assert low <= 3.0 <= high


@pytest.mark.parametrize(
    ("machine", "engine", "pytorch", "words"),
    [
        (Machine([STEADY]), [0.01], [0.02, 0.09, 0.03, 0.05], "the median is known to"),  # noisy
        (Machine([STEADY]), [0.01, 0.02], [0.03], "the median is known to"),  # of two speeds itself
        (Machine([STEADY], others=0.9), [0.01], [0.03], "other processes used"),  # overloaded
        (Machine([STEADY]), [4.0], [9.0], "1 runs fitted into the time"),
        (Machine([STEADY]), [100.0], [100.0], "1 runs fitted into the time"),
    ],
)
def test_what_is_noise_is_not_measured(
    machine: Machine, engine: list[float], pytorch: list[float], words: str
) -> None:
    row = machine.row(engine, pytorch)
    body = compared([row], "torch")
    assert body.batches == ()
    (reason,) = body.not_measured
    assert words in str(reason.reason)
    assert compared([row], "torch", keep_noise=True).batches


def test_a_slow_model_does_not_take_long() -> None:
    machine = Machine([STEADY])
    machine.row([4.0], [4.0], most_seconds=10.0)
    assert machine.now < 30  # a call of each to warm up, and one round


def test_a_batch_size_whose_rounds_clearly_take_too_long_is_not_begun() -> None:
    """PyTorch takes three times as long as the engine, so six rounds take 24 times its latency."""
    timed = Machine([STEADY]).row([0.01], [0.03])
    assert untimed(16, 300, timed, most_seconds=4) is None  # 7.2 s, which may be wrong by half
    row = untimed(16, 400, timed, most_seconds=4)
    assert row is not None
    for keep_noise in (False, True):
        body = compared([timed, row], "torch", keep_noise=keep_noise)
        assert [times.batch for times in body.batches] == [4]
        (reason,) = body.not_measured
        assert reason.batch == 16
        assert reason.reason == "6 runs would take 10 s, 4 s at most"


def test_quiet_batch_sizes_are_stated_beside_noisy_ones() -> None:
    quiet = Machine([STEADY]).row([0.01], [0.03])
    body = compared([quiet, Row(batch=16, engine_ms=1, eager_ms=2, ratios=(2.0,) * 3)], "torch")
    assert [row.batch for row in body.batches] == [4]
    assert [row.batch for row in body.not_measured] == [16]


def test_a_record_of_an_older_version_has_a_ratio_and_no_interval() -> None:
    row = ComparedBatch.model_validate({"batch": 1, "engine_ms": 2.0, "pytorch_ms": 3.0})
    assert row.ratio == pytest.approx(1.5)
    assert row.ratio_interval is None
    assert re.findall(r"\d+\.\d+", row.ratio_words) == ["1.50"]
    assert row.model_dump() == {"batch": 1, "engine_ms": 2.0, "pytorch_ms": 3.0}
    assert ComparedBatch(batch=1, engine_ms=0.0, pytorch_ms=3.0).ratio is None


def test_ratios_in_words() -> None:
    assert times_as_fast(1.3, (1.25, 1.36)) == "1.30 times as fast (1.25 to 1.36)"
    assert "within noise" in times_as_fast(1.02, (0.95, 1.08))
    assert quotient((2.0, 4.0), (1.0, 2.0)) == (1.0, 4.0)


def proof(signed: Signed, **measured: Any) -> None:
    """Attests a verification, as the farm does with a worker's result."""
    record = signed.build()
    verification = Verification(passed=True, reason=None, batches=(ROW,))
    output: BuildOutput = records.build_output(
        engine=None, verification=verification, machine=records.machine(cpu="one"), **measured
    )
    inputs = VerificationInputs(
        engine=record.engine.sha256, golden=record.golden.sha256, tolerance=TOLERANCE,
        batches=(1,), method="m",
    )  # fmt: skip
    attest_verification(signed.repository, inputs, record.key, output, file=None)
    signed.propose(record)
    assert not signed.publish().refused


def test_the_ratio_of_a_build_is_in_the_signed_index(signed: Signed) -> None:
    row = Machine([STEADY]).row([0.01], [0.03])
    proof(signed, comparison=compared([row], "torch 2"))
    (entry,) = signed.client().model("m").engines
    assert entry.comparison is not None
    assert entry.comparison.machine.cpu == "one"
    (batch,) = entry.comparison.batches
    assert batch.ratio_interval == pytest.approx((3, 3))
    assert entry.unmeasured_ratios == ()


def test_why_there_is_no_ratio_is_in_the_signed_index(signed: Signed) -> None:
    proof(signed, not_compared="the worker has no PyTorch")
    (entry,) = signed.client().model("m").engines
    assert entry.comparison is None
    assert entry.unmeasured_ratios == ((None, "the worker has no PyTorch"),)


def test_a_noisy_build_leaves_an_earlier_quiet_ratio(signed: Signed) -> None:
    proof(signed, comparison=ComparedBody.model_validate(
        {"batches": [{"batch": 1, "engine_ms": 1.0, "pytorch_ms": 2.0}], "pytorch": "torch 1"}
    ))  # fmt: skip
    proof(signed, not_compared="noise")
    (entry,) = signed.client().model("m").engines
    assert entry.comparison is not None
    assert entry.comparison.pytorch == "torch 1"
    assert entry.unmeasured_ratios == ()


@pytest.mark.parametrize("stated", [None, "x", [1], [{"batch": "1"}], {"batch": 1}])
def test_reasons_of_another_shape_are_left_out(stated: object) -> None:
    """Other versions may state them in another way."""
    found = ComparisonSummary.model_validate({"batches": [], "not_measured": stated})
    assert found.not_measured == ()
