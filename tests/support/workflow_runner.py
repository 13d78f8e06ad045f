"""A machine that runs the steps of a workflow as GitHub's do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from support.paths import ROOT

TOOLS = (
    "zoo", "builders", "docker", "Makefile", "options.mk", "README.md", "LICENSE", "pyproject.toml",
    "constraints.txt", ".github", ".venv/bin",
)  # fmt: skip


def shell(workflow: dict[str, Any]) -> list[str]:
    """Returns the command that GitHub runs a workflow's steps with; the step's text comes last."""
    named = workflow.get("defaults", {}).get("run", {}).get("shell")
    if named == "bash":
        return ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c"]
    assert named is None
    return ["bash", "-e", "-c"]


class Runner:
    """Runs steps in a folder that looks like a checkout.

    Args:
        folder: To work in.
        workflow: Name of the workflow.
        values: What expressions such as ``vars.STORE`` are worth.
    """

    def __init__(self, folder: Path, workflow: str, **values: str) -> None:
        path = ROOT / ".github" / "workflows" / f"{workflow}.yml"
        self._workflow: dict[str, Any] = yaml.safe_load(path.read_text())
        self.checkout, self.temp, self.values = folder / "checkout", folder / "temp", values
        for made in (self.checkout / "manifests", self.checkout / ".venv", self.temp):
            made.mkdir(parents=True)
        for name in TOOLS:
            (self.checkout / name).symlink_to(ROOT / name)
        (self.checkout / ".venv" / ".ready").touch()  # the environment is the tests' own

    def run(self, job: str, name: str) -> subprocess.CompletedProcess[str]:
        """Runs the step of a job whose name begins so."""
        [step] = [
            one for one in self._workflow["jobs"][job]["steps"] if one["name"].startswith(name)
        ]
        stated = {**self._workflow.get("env", {}), **step.get("env", {})}
        stated.pop("PIP_EXTRA_INDEX_URL", None)  # this machine has its own
        env = {key: self._worth(text) for key, text in stated.items()}
        output = self.temp / "output"
        output.write_text("")
        runs = {"GITHUB_OUTPUT": str(output), "RUNNER_TEMP": str(self.temp), "GITHUB_RUN_ID": "7"}
        runs |= {"GITHUB_ENV": str(self.temp / "env")}
        home = self.temp / "homes" / job  # each job is on a machine of its own
        return subprocess.run(
            [*shell(self._workflow), step["run"]], cwd=self.checkout,
            env={**os.environ, **runs, **env, "ZOO_HOME": str(home)},
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip

    @property
    def outputs(self) -> dict[str, str]:
        """What the last step left for others."""
        lines = (self.temp / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def _worth(self, text: str) -> str:
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: self.values[found[1]], text)
