"""Writes an engine's provenance as an in-toto statement with SLSA's predicate.

https://slsa.dev/spec/v1.0/provenance. It lists every input of the build key, and what the
key leaves out: the checkout, the container, the machine. Unknown values are left out.
"""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

from builders.jobs.messages import BuildJob, BuildOutput
from builders.paths import ROOT
from zoo.schema.keys import ExportInputs
from zoo.schema.records import Blob, ExportRecord


@cache
def checkout() -> dict[str, Any]:
    """Returns the commit of this checkout and whether files differ from it; empty without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "changed": bool(changed)}


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    return done.stdout.strip()


def statement(
    job: BuildJob, export: ExportRecord, output: BuildOutput, engine: Blob, created: str
) -> dict[str, Any]:
    """Returns the in-toto statement of where an engine comes from.

    Args:
        job: What was built.
        export: What it was built from.
        output: The worker's result.
        engine: The engine.
        created: When, ISO 8601 in UTC.
    """
    inputs = job.inputs
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{inputs.model}.engine", "digest": {"sha256": engine.sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "caft-zoo/build/v1",
                "externalParameters": inputs.model_dump(mode="json"),
                "internalParameters": {"buildKey": inputs.key, "exportKey": export.inputs.key},
                "resolvedDependencies": [
                    {"name": "onnx", "digest": {"sha256": export.onnx.sha256}},
                    {"name": "golden", "digest": {"sha256": export.golden.sha256}},
                    _weights(export.inputs),
                ],
            },
            "runDetails": {
                "builder": {"id": "caft-zoo/zoo-farm", **_builder(output)},
                "metadata": {"finishedOn": created},
                "byproducts": [
                    {"name": "machine", "annotations": output.machine.model_dump(mode="json")}
                ],
            },
        },
    }


def _builder(output: BuildOutput) -> dict[str, Any]:
    builder: dict[str, Any] = {}
    if known := checkout():
        builder["version"] = {"git": known["commit"], "changed": str(known["changed"]).lower()}
    if image := output.machine.image:
        builder["builderDependencies"] = [{"name": "container", "uri": image}]
    return builder


def _weights(inputs: ExportInputs) -> dict[str, Any]:
    return {
        "name": "weights",
        "digest": {"sha256": inputs.weights.digest},
        "annotations": {
            "kind": inputs.weights.kind,
            "source": inputs.weights.source,
            "exporters": inputs.versions,
        },
    }
