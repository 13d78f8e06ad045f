"""Request: what ``make plan``, ``make zoo`` and ``make nightly`` were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builders.photos.calibration import CalibrationSet
from builders.photos.labelled import LabelledSet
from builders.toolchains.elsewhere import Places
from builders.weights.mode import WeightsMode
from zoo.schema.manifest import Manifest
from zoo.schema.targets import Precision


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``make plan``, ``make zoo`` and ``make nightly`` were asked for.

    Attributes:
        manifests: The models.
        manifest_dir: Their folder.
        places: What builds for each architecture, and where engines are run.
        precisions: By name, or None for all that a model and its target support.
        weights: Real weights, or seeded ones.
        calibration: The images that lower precisions are measured and tried on.
        builder: Builder options by name, as text.
        failures: Folder that keeps the job and log of what failed.
        labelled: Photos for a linear probe, a part of the verdicts; None for none.
        retry: Whether to try again what failed with the same inputs.
    """

    manifests: Mapping[str, Manifest]
    manifest_dir: Path
    places: Places
    precisions: tuple[Precision, ...] | None
    weights: WeightsMode
    calibration: CalibrationSet
    failures: Path
    builder: Mapping[str, str] = field(default_factory=dict)
    labelled: LabelledSet | None = None
    retry: bool = False
