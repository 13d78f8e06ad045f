"""Probing: what a precision costs on labelled photos, as a part of an engine's verdict.

A linear probe is trained on PyTorch's features and on the engine's, on the same folds. A small set
must not fail by noise: what counts is a fall that is more than allowed by two standard errors.
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
from builders.jobs.messages import BuildOutput, Job, Prove, ReferenceJob, ReferenceOutput
from builders.photos.labelled import LabelledSet
from zoo.schema.floors import probe_fall
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import ProbeNumbers
from zoo.schema.records import Attestation, is_verdict
from zoo.schema.targets import Precision
from zoo.util.errors import JobError

FOLDS = 5
ERRORS = 2
"""Standard errors of the fall that are taken off it."""

Flags = npt.NDArray[np.bool_]
RunJob = Callable[[str, Job], AbstractContextManager[Outcome]]
"""Runs a job under a label, and keeps what it leaves while it is looked at."""


class Probing:
    """Adds the linear probe to the verdicts of a run.

    Args:
        labelled: The maintainer's photos; None to add nothing.
        folder: Where PyTorch's features of them are kept during the run: on this machine, outside
            of any repository.
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
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        self.labelled = labelled
        self._folder, self._manifest_dir, self._run, self._store = folder, manifest_dir, run, store
        self._turns: dict[str, threading.Lock] = {}
        self._right = cache(self._right_in_pytorch)

    def lacks(self, attestations: list[Attestation]) -> bool:
        """Whether an engine's verdict says nothing of these photos."""
        if self.labelled is None:
            return False
        verdicts = list(filter(is_verdict, attestations))
        return not any(one.probed == self.labelled.sha256 for one in verdicts)

    def prove(self, manifest: Manifest, prove: Prove) -> Prove:
        """Adds the photos to what an engine has to prove."""
        if self.labelled is None:
            return prove
        return prove.model_copy(update={"labelled": str(self._reference(manifest).resolve())})

    def judged(self, outcome: Outcome, manifest: Manifest, precision: Precision) -> Outcome:
        """Adds the probe to the verdict of a job that computed an engine's features of the photos.

        Args:
            outcome: Of the job.
            manifest: The model.
            precision: Of the engine.
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
            right = probe(features, arrays["labels"])
        numbers = compare(self._right(manifest.id), right, probe_fall(precision)).but(
            name=self.labelled.name, sha256=self.labelled.sha256, folds=FOLDS
        )
        lost = int((~_finite(features)).sum())
        reason = (
            f"{lost} of {len(features)} labelled photos have features with NaN or infinity"
            if lost
            else miss(numbers)
        )
        judged = verification.model_copy(
            update={
                "probe": numbers,
                "labelled": None,
                "passed": verification.passed and reason is None,
                "reason": reason or verification.reason,
            }
        )
        return Outcome(
            result=output.model_copy(update={"verification": judged}), folder=outcome.folder
        )

    def close(self) -> None:
        """Forgets the photos and PyTorch's features of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _reference(self, manifest: Manifest) -> Path:
        """Returns PyTorch's features of the photos, computed once in a run."""
        path = self._folder / f"{manifest.id}.npz"
        with self._turns.setdefault(manifest.id, threading.Lock()):
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
        """Refuses features of other photos than those that the worker was given.

        Raises:
            JobError: Its labels differ from the job's.
        """
        assert self.labelled is not None
        with np.load(path) as arrays:
            if arrays["labels"].tolist() != list(self.labelled.labels):
                raise JobError("a worker returned features of labelled photos with other labels")

    def _right_in_pytorch(self, model: str) -> Flags:
        with np.load(self._folder / f"{model}.npz") as arrays:
            return probe(arrays["features"], arrays["labels"])


def probe(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Flags:
    """Says which photos a linear probe names rightly when it has not seen them, over k folds.

    One whose features hold NaN or infinity is named wrongly.

    Args:
        features: ``(N, feature_dim)``.
        labels: ``(N,)``; every class has as many photos as there are folds, at least.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    finite = _finite(features)
    known = np.where(finite[:, None], features, 0)
    right: Flags = cross_val_predict(classifier, known, labels, cv=folds) == labels
    return right & finite


def _finite(features: npt.NDArray[np.float32]) -> Flags:
    """Says which rows are finite throughout."""
    return np.array([np.isfinite(row).all() for row in features], np.bool_)


def compare(pytorch: Flags, engine: Flags, allowed: float) -> ProbeNumbers:
    """Compares which photos are named rightly by PyTorch's features and by an engine's.

    Args:
        pytorch: ``(N,)``.
        engine: ``(N,)``, of the same photos.
        allowed: Loss of accuracy that is allowed, of 1.
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
    """Says in words that accuracy fell too far; None where it did not."""
    if numbers.fall - ERRORS * numbers.standard_error <= numbers.allowed:
        return None
    return (
        f"a linear probe on {numbers.photos} labelled photos names {numbers.engine:.1%} "
        f"rightly, {numbers.pytorch:.1%} on PyTorch's features; a fall of "
        f"{numbers.allowed:.1%} is allowed, two standard errors "
        f"({ERRORS * numbers.standard_error:.1%}) aside"
    )
