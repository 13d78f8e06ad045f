"""Measures what a precision costs a linear probe on labelled photos, for the engine's verdict.

A linear probe is trained on PyTorch's features and on the engine's, with the same folds. So that
a small set does not fail by noise, an engine fails only if accuracy falls by more than is allowed
plus two standard errors.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.executors import Outcome
from builders.jobs.messages import BuildOutput, Job, ReferenceJob, ReferenceOutput, VerificationSpec
from builders.photos.labelled import LabelledSet
from zoo.schema.floors import probe_fall
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import ProbeNumbers
from zoo.schema.records import (
    Attestation,
)
from zoo.schema.status import is_verdict
from zoo.schema.targets import Precision
from zoo.util.errors import JobError

FOLDS = 5
ERRORS = 2
"""Number of standard errors that are subtracted from the fall in accuracy."""

Flags = npt.NDArray[np.bool_]
RunJob = Callable[[str, Job], AbstractContextManager[Outcome]]
"""Runs a job under a label; keeps its output folder while the context is open."""


class Probing:
    """Adds a linear probe to the verdicts of a run.

    Args:
        labelled: The maintainer's photos; None to add nothing.
        folder: Folder for PyTorch's features of the photos during the run: on this machine,
            outside any repository.
        manifest_dir: Folder of the manifests.
        run: Runs a job.
        store: The store's URL.
    """

    def __init__(
        self,
        labelled: LabelledSet | None,
        folder: Path,
        manifest_dir: Path,
        run: RunJob,
        store: str,
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
        self.labelled = labelled
        self._folder, self._manifest_dir, self._run, self._store = folder, manifest_dir, run, store
        self._locks: dict[str, threading.Lock] = {}
        self._correct = cache(self._correct_in_pytorch)

    def lacks(self, attestations: list[Attestation]) -> bool:
        """Whether no verdict of an engine covers these photos."""
        if self.labelled is None:
            return False
        verdicts = list(filter(is_verdict, attestations))
        return not any(verdict.probed == self.labelled.sha256 for verdict in verdicts)

    def with_photos(self, manifest: Manifest, spec: VerificationSpec) -> VerificationSpec:
        """Adds the photos to the verification of an engine."""
        if self.labelled is None:
            return spec
        return spec.model_copy(update={"labelled": str(self._reference(manifest).resolve())})

    def with_probe(self, outcome: Outcome, manifest: Manifest, precision: Precision) -> Outcome:
        """Adds the probe to the verdict of a job that computed an engine's features of the photos.

        Args:
            outcome: Outcome of the job.
            manifest: The model.
            precision: Precision of the engine.

        Raises:
            JobError: The worker returned features of the wrong shape, or of other photos.
        """
        output = outcome.result
        if self.labelled is None or not isinstance(output, BuildOutput):
            return outcome
        verification = output.verification
        if verification is None or verification.labelled is None:
            return outcome
        features = np.load(outcome.folder / verification.labelled)
        with np.load(self._reference(manifest)) as arrays:
            if features.shape != arrays["features"].shape:
                raise JobError(
                    f"a worker returned features of shape {features.shape} for labelled photos "
                    f"whose features in PyTorch have shape {arrays['features'].shape}"
                )
            correct = probe(features, arrays["labels"])
        numbers = compare(self._correct(manifest.id), correct, probe_fall(precision)).but(
            name=self.labelled.name, sha256=self.labelled.sha256, folds=FOLDS
        )
        broken = int((~_finite(features)).sum())
        reason = (
            f"{broken} of {len(features)} labelled photos have features with NaN or infinity"
            if broken
            else miss(numbers)
        )
        probed = verification.model_copy(
            update={
                "probe": numbers,
                "labelled": None,
                "passed": verification.passed and reason is None,
                "reason": reason or verification.reason,
            }
        )
        return Outcome(
            result=output.model_copy(update={"verification": probed}), folder=outcome.folder
        )

    def close(self) -> None:
        """Deletes PyTorch's features of the photos."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _reference(self, manifest: Manifest) -> Path:
        """Returns the file of PyTorch's features of the photos, computed once per run."""
        path = self._folder / f"{manifest.id}.npz"
        with self._locks.setdefault(manifest.id, threading.Lock()):
            if path.is_file():
                return path
            assert self.labelled is not None
            job = ReferenceJob(
                manifest=manifest, manifest_dir=str(self._manifest_dir.resolve()),
                labelled=self.labelled, store=self._store,
            )  # fmt: skip
            with self._run(f"{manifest.id} labelled photos", job) as outcome:
                assert isinstance(outcome.result, ReferenceOutput)
                self._check_labels(outcome.folder / outcome.result.file)
                self._folder.mkdir(parents=True, exist_ok=True)
                shutil.move(outcome.folder / outcome.result.file, path)
        return path

    def _check_labels(self, path: Path) -> None:
        """Checks that a worker returned features of the photos that it was given.

        Raises:
            JobError: The labels differ from the job's.
        """
        assert self.labelled is not None
        with np.load(path) as arrays:
            if arrays["labels"].tolist() != list(self.labelled.labels):
                raise JobError("a worker returned features of labelled photos with other labels")

    def _correct_in_pytorch(self, model: str) -> Flags:
        with np.load(self._folder / f"{model}.npz") as arrays:
            return probe(arrays["features"], arrays["labels"])


def probe(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Flags:
    """Returns which photos a linear probe classifies correctly in k-fold cross-validation.

    Photos whose features contain NaN or infinity count as wrong.

    Args:
        features: ``(N, feature_dim)``.
        labels: ``(N,)``; every class has at least as many photos as there are folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    finite = _finite(features)
    cleaned = np.where(finite[:, None], features, 0)
    correct: Flags = cross_val_predict(classifier, cleaned, labels, cv=folds) == labels
    return correct & finite


def _finite(features: npt.NDArray[np.float32]) -> Flags:
    """Returns which rows contain only finite values."""
    return np.array([np.isfinite(row).all() for row in features], np.bool_)


def compare(pytorch: Flags, engine: Flags, allowed: float) -> ProbeNumbers:
    """Compares the accuracy of a probe on PyTorch's features and on an engine's.

    Args:
        pytorch: ``(N,)``, which photos are classified correctly.
        engine: ``(N,)``, the same photos.
        allowed: Allowed fall in accuracy, as a fraction of 1.
    """
    difference = pytorch.astype(float) - engine.astype(float)
    return ProbeNumbers(
        photos=len(pytorch),
        pytorch=round(float(pytorch.mean()), 6),
        engine=round(float(engine.mean()), 6),
        fall=round(float(difference.mean()), 6),
        standard_error=round(float(difference.std(ddof=1) / np.sqrt(len(pytorch))), 6),
        allowed=allowed,
    )


def miss(numbers: ProbeNumbers) -> str | None:
    """Returns the reason to fail an engine whose accuracy fell too far, otherwise None."""
    if numbers.fall - ERRORS * numbers.standard_error <= numbers.allowed:
        return None
    return (
        f"a linear probe on {numbers.photos} labelled photos classifies {numbers.engine:.1%} "
        f"correctly, {numbers.pytorch:.1%} on PyTorch's features; the allowed loss is "
        f"{numbers.allowed:.1%} plus two standard errors ({ERRORS * numbers.standard_error:.1%})"
    )
