"""Runs an engine of ONNX Runtime against its golden features, in a process that holds no keys.

The publisher starts this module before it signs a CPU engine as verified: an attestation is a
claim, and this is the one kind of engine that every machine of its architecture can run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from builders.jobs.onnx_check import read_model
from builders.jobs.output_formats import check_golden
from builders.jobs.progress import silent
from zoo.schema.floors import Tolerance
from zoo.schema.keys import BuildInputs
from zoo.util.causes import cause_of
from zoo.util.errors import MissingPackageError, VerificationError, ZooError

CHILD = "builders.verify.rerun"
"""This module, which is started as a program."""


class Rerun(BaseModel):
    """What to run, as JSON on standard input.

    Attributes:
        engine: The engine's file.
        golden: Its golden file.
        inputs: The inputs of its build.
        tolerance: The tolerance that it must meet; None to load it only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Path
    golden: Path
    inputs: BuildInputs
    tolerance: Tolerance | None


def rerun(job: Rerun) -> None:
    """Loads an engine and compares its features of the golden photos with PyTorch's.

    Raises:
        JobError: It is not an ONNX model, or the golden file is not one.
        RunError: ONNX Runtime can't load it.
        VerificationError: It misses the tolerance, or can't be run.
    """
    read_model(job.engine, load=job.tolerance is None)  # or it is loaded to be run
    if job.tolerance is None:
        return
    check_golden(job.golden)
    import numpy as np

    from builders.photos.edge import EDGE_PICTURES
    from builders.verify.compare import verify
    from zoo.runtime.onnxruntime import open_session

    try:
        with np.load(job.golden) as arrays:
            count = len(arrays["features"])
        with open_session(job.engine, job.inputs) as session:
            found = verify(
                session, job.golden, job.inputs.preprocess, job.tolerance, (count,), silent,
                edges_at=len(EDGE_PICTURES),
            )  # fmt: skip
    except ZooError:
        raise
    except Exception as error:  # of arrays and inputs of other forms
        raise VerificationError(f"it can't be run: {cause_of(error)}") from error
    if not found.passed:
        raise VerificationError(f"run again here, it misses its tolerance: {found.reason}")


def main() -> int:
    """Runs the engine that standard input names; returns the exit status."""
    try:
        rerun(Rerun.model_validate_json(sys.stdin.read()))
    except ZooError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code if isinstance(error, MissingPackageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
