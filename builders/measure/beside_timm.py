"""Measurements of engines beside timm, as ``benchmarks.against_timm`` writes them to a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from zoo.schema.measurements import Cost
from zoo.util.errors import UsageError
from zoo.util.files import write_whole
from zoo.util.loading import read_regular


class BesideTimm(BaseModel):
    """An engine beside timm.

    Attributes:
        model: The model's id.
        targets: Labels of the engine.
        status: What the index states of it: ``verified``, ``pending``.
        cosine: Worst of any photo, against timm; None for an engine that did not run.
        relative_error: Worst of any photo, ``|y - r| / |r|``.
        export: What its export cost; golden features and conversion to its precision included.
        build: What build and verification cost.
        size: Bytes of the engine.
        seeded: Whether its weights are seeded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    targets: str
    status: str
    cosine: float | None = None
    relative_error: float | None = None
    export: Cost
    build: Cost
    size: int
    seeded: bool


_ROWS = TypeAdapter(list[BesideTimm])


def read_rows(path: Path) -> list[BesideTimm]:
    """Reads measurements; none if there is no file.

    Raises:
        UsageError: The file holds something else.
    """
    try:
        return _ROWS.validate_json(read_regular(path))
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"{path}: not a file of measurements",
            hint="python -m benchmarks.against_timm writes it",
        ) from error


def add_rows(path: Path, rows: list[BesideTimm]) -> None:
    """Adds measurements to a file; those of the same engine are replaced.

    Args:
        path: The file.
        rows: The measurements.

    Raises:
        UsageError: The file holds something else.
    """
    kept = {(row.model, row.targets): row for row in [*read_rows(path), *rows]}
    ordered = [kept[key] for key in sorted(kept)]
    write_whole(path, _ROWS.dump_json(ordered, indent=1, exclude_none=True) + b"\n")
