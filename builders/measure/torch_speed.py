"""Results of ``zoo-farm torch-speed``: PyTorch's latencies, to compare an engine's benchmark with.

An engine and PyTorch may need different Pythons on a GPU machine, so the two are timed in different
processes and compared through files.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.schema.index import ComparedBatch, ComparisonSummary, EngineEntry
from zoo.schema.measurements import MachineDescription
from zoo.util.errors import UsageError


class TorchTimes(BaseModel):
    """PyTorch's latency at one batch size.

    Attributes:
        batch: Images per batch.
        eager_ms: Median latency in eager mode, milliseconds.
        compiled_ms: Median latency with ``torch.compile``, milliseconds; None if not measured.
    """

    model_config = ConfigDict(frozen=True)

    batch: int
    eager_ms: float
    compiled_ms: float | None = None

    @property
    def best_ms(self) -> float:
        """The lower of the two latencies, milliseconds."""
        return min(self.eager_ms, self.eager_ms if self.compiled_ms is None else self.compiled_ms)


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
        return TorchSpeed.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else _first(error)
        raise UsageError(
            f"{path}: not a file that torch-speed writes: {reason}",
            hint="zoo-farm torch-speed writes these files",
        ) from error


def beside_torch_speed(entry: EngineEntry, speed: TorchSpeed) -> ComparisonSummary | None:
    """Compares a GPU engine's benchmark with PyTorch's latencies for its model.

    Returns:
        The comparison at the batch sizes that both were measured at; None if the engine was not
        benchmarked on the same kind of GPU or has another precision.
    """
    timed, gpu = entry.benchmark, speed.machine.gpu_name
    if timed is None or entry.precision != speed.precision:
        return None
    if gpu is None or timed.machine.gpu_name != gpu:
        return None
    engine_ms = {row.batch: row.latency_ms for row in timed.batches}
    return ComparisonSummary(
        batches=tuple(
            ComparedBatch(batch=row.batch, engine_ms=engine_ms[row.batch], pytorch_ms=row.best_ms)
            for row in speed.batches
            if row.batch in engine_ms
        ),
        pytorch=f"torch {speed.torch}, {speed.precision} channels_last, the best of eager "
        "and torch.compile, on the same kind of GPU in another process",
        machine=speed.machine,
    )


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
