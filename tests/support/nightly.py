"""Runs ``make nightly`` as CI does."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from support.make_farm import Farm
from support.paths import ROOT
from zoo.catalog.night import NightlyRun, read_nightly


@dataclass(frozen=True)
class Night:
    """The outcome of a night.

    Attributes:
        status: Exit status of make.
        run: Its report.
        issue: The text of its issue, empty if there is none.
        output: What it printed.
    """

    status: int
    run: NightlyRun
    issue: str
    output: str

    @property
    def failed(self) -> set[str]:
        return {f"{job.model} {job.target}" for job in self.run.failed}


def night_of(farm: Farm, *variables: str) -> Night:
    """Runs a night as CI does."""
    command = [word if word != "zoo" else "nightly" for word in farm.command(*variables)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=3000,
        env={**os.environ, "COLUMNS": "200", **farm.home},
    )  # fmt: skip
    folder = farm.folder / "_nightly"
    issue = folder / "issue.md"
    return Night(
        status=done.returncode,
        run=read_nightly(folder / "run.json"),
        issue=issue.read_text() if issue.exists() else "",
        output=done.stdout + done.stderr,
    )


def verified(farm: Farm, model: str) -> set[str]:
    index = farm.repository.model_index(model)
    assert index is not None
    return {label for e in index.current if e.status == "verified" for label in e.targets}
