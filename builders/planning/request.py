"""The request of ``make plan``, ``make zoo`` and ``make nightly``."""

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
from zoo.util.errors import ManifestError, ZooError


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request of ``make plan``, ``make zoo`` and ``make nightly``.

    Attributes:
        manifests: The models.
        manifest_dir: Their folder.
        places: The toolchain for each architecture, and where engines are run.
        precisions: The precisions; None for all that a model and its target support.
        weights: Whether to use trained or seeded weights.
        calibration: The images that lower precisions are calibrated and evaluated on.
        builder: Builder options by name, as text.
        failures: Folder that keeps the files of failed jobs.
        labelled: Photos for a linear probe in each verdict; None for none.
        retry: Whether to retry engines that failed with the same inputs.
        unlocked: Why the weights of a model could not be locked.
        locks_first: Whether a run will lock weights that are not: a plan then counts on it.
        refused: What timm states differently, of the models whose manifests it refuses.
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
    unlocked: Mapping[str, ZooError] = field(default_factory=dict)
    locks_first: bool = False
    refused: Mapping[str, ManifestError] = field(default_factory=dict)
