"""Results of ``zoo-farm torch-speed``: PyTorch's latencies, to compare an engine's benchmark with.

An engine and PyTorch may need different Pythons on a GPU machine, so the two are timed in different
processes and compared through files.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from builders.verify.spread import LEAST_RUNS, Spread, why_too_noisy
from zoo.schema.index import EngineEntry, TimedBatch
from zoo.schema.intervals import Interval, quotient
from zoo.schema.measurements import (
    ComparedBody,
    ComparedTimes,
    MachineDescription,
    Unmeasured,
)
from zoo.util.errors import UsageError
from zoo.util.loading import read_regular


class TorchTimes(BaseModel):
    """PyTorch's latency at one batch size.

    Attributes:
        batch: Images per batch.
        eager_ms: Median latency in eager mode, milliseconds.
        compiled_ms: Median latency with ``torch.compile``, milliseconds; None if not measured.
        eager_interval_ms: Encloses the true median of eager mode with 95%; None in old files.
        compiled_interval_ms: The same with ``torch.compile``.
    """

    model_config = ConfigDict(frozen=True)

    batch: int
    eager_ms: float
    compiled_ms: float | None = None
    eager_interval_ms: Interval | None = None
    compiled_interval_ms: Interval | None = None

    @property
    def _is_best_compiled(self) -> bool:
        return self.compiled_ms is not None and self.compiled_ms < self.eager_ms

    @property
    def best_ms(self) -> float:
        """The lower of the two latencies, milliseconds."""
        return self.compiled_ms if self.compiled_ms and self._is_best_compiled else self.eager_ms

    @property
    def best_interval_ms(self) -> Interval | None:
        """The interval of that latency."""
        return self.compiled_interval_ms if self._is_best_compiled else self.eager_interval_ms

    @property
    def noisy(self) -> str | None:
        """Why the latency is no fact; None if it is one, or if its spread is unknown."""
        if (interval := self.best_interval_ms) is None:
            return None
        # A file states intervals only of enough runs.
        of_times = Spread(runs=LEAST_RUNS, median=self.best_ms, mad=0, interval=interval)
        return why_too_noisy(of_times, None)


class TorchSpeed(BaseModel):
    """PyTorch's latencies for a model's backbone on one machine.

    Attributes:
        model: Manifest id.
        torch: Version of PyTorch.
        precision: The precision that PyTorch ran in.
        machine: The machine.
        batches: Latencies by batch size.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    torch: str
    precision: str
    machine: MachineDescription
    batches: tuple[TorchTimes, ...]

    def to_json(self) -> str:
        """Returns the file that :func:`read_torch_speed` reads."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1) + "\n"


def read_torch_speed(path: Path) -> TorchSpeed:
    """Reads a file that ``zoo-farm torch-speed`` wrote.

    Raises:
        UsageError: It can't be read or is another kind of file.
    """
    try:
        return TorchSpeed.model_validate_json(read_regular(path))
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else _first(error)
        raise UsageError(
            f"{path}: not a file that torch-speed writes: {reason}",
            hint="zoo-farm torch-speed writes these files",
        ) from error


def beside_torch_speed(entry: EngineEntry, speed: TorchSpeed) -> ComparedBody | None:
    """Compares a GPU engine's benchmark with PyTorch's latencies for its model.

    Returns:
        The comparison at the batch sizes that both were measured at, those that are noise by
        reason; None if the engine was not benchmarked on the same kind of GPU or has another
        precision.
    """
    timed, gpu = entry.benchmark, speed.machine.gpu_name
    if timed is None or entry.precision != speed.precision:
        return None
    if gpu is None or timed.machine.gpu_name != gpu:
        return None
    engine = {row.batch: row for row in timed.batches}
    rows = [row for row in speed.batches if row.batch in engine]
    body = ComparedBody(
        batches=tuple(_compared(engine[row.batch], row) for row in rows if not row.noisy),
        pytorch=f"torch {speed.torch}, {speed.precision} channels_last, the best of eager "
        "and torch.compile, on the same kind of GPU in another process",
    )
    noisy = tuple(Unmeasured(batch=row.batch, reason=row.noisy) for row in rows if row.noisy)
    return body.but(not_measured=noisy) if noisy else body


def _compared(engine: TimedBatch, torch: TorchTimes) -> ComparedTimes:
    """Returns a row; its ratio has an interval only if both times have one."""
    row = ComparedTimes(batch=torch.batch, engine_ms=engine.latency_ms, pytorch_ms=torch.best_ms)
    if engine.latency_ms <= 0:
        return row
    row = row.but(ratio=torch.best_ms / engine.latency_ms)
    if (above := torch.best_interval_ms) and (below := engine.interval_ms):
        row = row.but(ratio_interval=quotient(above, below))
    return row


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
