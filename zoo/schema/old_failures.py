"""Failure records as they were written before there was one kind of them. Only read, never written.

::

    disabled/<model>/<export-key>.json        a precision that could not be exported
    strikes/<model>/<build-key>/<time>.json   a night in which an engine failed
    missed/<model>/<key>.json                 an engine that missed its tolerance
"""

from __future__ import annotations

from collections.abc import Mapping

from zoo.schema.keys import BuildInputs, ExportInputs, WeightsIdentity
from zoo.schema.measurements import CalibrationImages, Cost
from zoo.schema.records import Advice, FailureReason, FailureRecord, FailureStage, Record
from zoo.util.digest import sha256_json

STRIKES, MISSED = "strikes/", "missed/"


class OldDisabled(Record):
    """``disabled/``: a precision that could not be exported."""

    inputs: ExportInputs
    reason: str
    calibration: CalibrationImages | None = None
    advice: Advice | None = None
    stricter_may_pass: bool = False
    cost: Cost

    def failure(self) -> FailureRecord:
        """Returns the same as it is written today."""
        return FailureRecord(
            stage=FailureStage.EXPORT,
            reason=FailureReason.TOLERANCE,
            text=self.reason,
            inputs=self.inputs,
            stricter_may_pass=self.stricter_may_pass,
            calibration=self.calibration,
            advice=self.advice,
            cost=self.cost,
        )


class OldStrike(Record):
    """``strikes/``: an engine that failed in one run."""

    inputs: BuildInputs
    weights: WeightsIdentity
    targets: tuple[str, ...]
    reason: str
    time: str
    tolerance: dict[str, float] | None = None
    missed: bool = False

    def failure(self) -> FailureRecord:
        """Returns the same as it is written today."""
        return FailureRecord(
            stage=FailureStage.BUILD,
            reason=FailureReason.TOLERANCE if self.missed else FailureReason.CRASHED,
            text=self.reason,
            inputs=self.inputs,
            time=self.time,
            tolerance=self.tolerance,
            weights=self.weights,
            targets=self.targets,
        )


class OldMiss(Record):
    """``missed/``: an engine that missed its tolerance, a record for each architecture."""

    inputs: BuildInputs
    tolerance: dict[str, float]
    reason: str

    def failure(self) -> FailureRecord:
        """Returns the same as it is written today."""
        return FailureRecord(
            stage=FailureStage.BUILD,
            reason=FailureReason.TOLERANCE,
            text=self.reason,
            inputs=self.inputs,
            tolerance=self.tolerance,
        )


def disabled_key(model: str, key: str) -> str:
    """Returns the key of the old record of a failed export."""
    return f"disabled/{model}/{key}.json"


def strikes_prefix(model: str, key: str) -> str:
    """Returns the key prefix of an engine's old records."""
    return f"{STRIKES}{model}/{key}/"


def missed_key(inputs: BuildInputs, tolerance: Mapping[str, float]) -> str:
    """Returns the key of the old record of an engine that missed a tolerance.

    Args:
        inputs: What it was made from, for one architecture.
        tolerance: Which one.
    """
    name = sha256_json({"build": inputs.key, "tolerance": dict(tolerance)})
    return f"{MISSED}{inputs.model}/{name}.json"
