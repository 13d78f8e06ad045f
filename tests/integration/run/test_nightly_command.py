"""``make nightly`` when something fails: exit status, report, issue, and what stays published."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.make_farm import Farm
from support.models import LITE, SMALL
from support.paths import MANIFESTS, ROOT, TESTS

from zoo.catalog.night import NightlyRun, read_nightly

STRICT = "[tolerance.fp32]\nrelative_error = 0.00000001\n\n"


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


def test_a_failed_export(dry_run_copy: Farm) -> None:
    """One of two models names a tag that timm lacks; the other is up to date."""
    night = night_of(dry_run_copy, "WEIGHTS=seeded", f"MODELS={SMALL},{LITE}", "GPU=cpu")
    assert night.status != 0
    assert night.run.current == 1
    assert {job.model for job in night.run.failed} == {LITE}
    (title, _, *body) = night.issue.splitlines()
    assert title.endswith("1 failure")
    assert any("'nothing_in1k'" in line for line in body)
    assert verified(dry_run_copy, SMALL) == {"cpu-ort1.32-fp32"}
    page = (dry_run_copy.folder / "site" / "report.html").read_text()
    assert "nothing_in1k" in page


def test_failed_weights(copy: Farm) -> None:
    """The hash in the manifest is not that of the package; what is published stays."""
    before = verified(copy, LITE)
    text = (copy.manifests / f"{LITE}.toml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("sha256 = ")]
    copy.edit(LITE, line, f'sha256 = "{"0" * 64}"')
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert night.status != 0
    assert {job.model for job in night.run.failed} == {LITE}
    assert LITE in night.issue
    assert verified(copy, LITE) == before


def test_a_failed_verification(copy: Farm) -> None:
    """The engine misses the manifest's new tolerance; the second night is no news."""
    copy.edit(LITE, "[catalog]", f"{STRICT}[catalog]")
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert night.status != 0
    assert night.failed == {f"{LITE} cpu-ort1.32-fp32"}
    assert "relative error" in night.issue
    assert verified(copy, LITE) == set()
    again = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert (again.status, again.issue, again.run.failed) == (0, "", ())


def test_one_broken_manifest_among_good_ones(copy: Farm) -> None:
    for name in ("not_toml", "unknown_field"):
        shutil.copy(TESTS / "manifests" / f"{name}.toml", copy.manifests)
    night = night_of(copy, "GPU=cpu", "PRECISION=fp32", f"MODELS={LITE},not_toml,unknown_field")
    assert night.status != 0
    assert {job.model for job in night.run.failed} == {"not_toml", "unknown_field"}
    assert night.run.current == 1
    assert "2 failures" in night.issue.splitlines()[0]
    assert verified(copy, LITE) == {"cpu-ort1.32-fp32"}


def test_a_lost_precision(copy: Farm) -> None:
    """int8 can't meet the manifest's new tolerance, nor can the published engine."""
    shutil.copy(MANIFESTS / f"{LITE}.toml", copy.manifests)
    first = night_of(copy, f"MODELS={LITE}", "GPU=cpu", "PRECISION=int8")
    if first.status:
        pytest.fail(first.output)
    (label,) = {label for label in verified(copy, LITE) if "int8" in label}
    copy.edit(LITE, "[catalog]", "[tolerance.int8]\ncosine = 0.99999999\n\n[catalog]")
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu", "PRECISION=int8")
    assert night.status != 0
    assert {job.model for job in night.run.failed} == {LITE}
    assert "int8" in night.issue
    assert label not in verified(copy, LITE)
    again = night_of(copy, f"MODELS={LITE}", "GPU=cpu", "PRECISION=int8")
    assert (again.status, again.issue) == (0, "")


def test_a_calm_night(copy: Farm) -> None:
    path = Path(copy.folder / "_nightly" / "issue.md")
    path.parent.mkdir()
    path.write_text("of yesterday")
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert (night.status, night.issue, night.run.failed, night.run.current) == (0, "", (), 1)
