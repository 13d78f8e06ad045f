"""Request: what ``make zoo`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from builders.calibration import CalibrationSet
from builders.labelled import LabelledSet
from builders.weights import WeightsMode
from zoo.manifest import Manifest
from zoo.target import Arch, Precision, Toolchain


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``make zoo`` was asked for.

    Attributes:
        manifests: The models.
        manifest_dir: Their folder.
        toolchains: What builds for each architecture.
        precisions: By name, or None for all that a model and its target take.
        weights: Real weights, or seeded ones.
        calibration: The images that lower precisions are measured and tried on.
        builder: Builder options by name, as text.
        failures: Folder that keeps the job and log of what failed.
        labelled: Photos for a linear probe, a part of the verdicts; None for none.
    """

    manifests: dict[str, Manifest]
    manifest_dir: Path
    toolchains: dict[Arch, Toolchain]
    precisions: tuple[Precision, ...] | None
    weights: WeightsMode
    calibration: CalibrationSet
    failures: Path
    builder: dict[str, str] = field(default_factory=dict)
    labelled: LabelledSet | None = None
