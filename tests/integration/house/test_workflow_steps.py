"""Every step of every workflow is run by a test, with stand-ins for what only GitHub has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT
from support.workflow_runner import Runner

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

TOKEN = "A token for the bucket"
PAGES = "To Pages"
PYPI = "To PyPI"
RELEASE = "To the release"
ALERT = "An issue, with the run that failed"

ELSEWHERE = {
    "Check out": "test_workflows.py",
    "Plan": "test_workflow_night.py",
    "Build and verify; what comes of it waits for the publisher": "test_workflow_night.py",
    "Verify what waits for this GPU": "test_workflow_night.py",
    "Check what was built, and sign it": "test_workflow_night.py",
    "The keys go": "test_workflow_night.py",
    "The catalog and its report": "test_workflow_night.py",
    "An issue on what failed": "test_workflows.py",
    "An issue on what became worse": "test_workflows.py",
    "The wheel": "test_wheel.py",
    "The tag names its version": "test_wheel.py",
    "In an empty environment": "test_wheel.py",
    "The SBOM": "test_audit.py",
    "Licences and advisories of dependencies": "test_audit.py",
}
"""Steps that are run by tests of other files."""

NOT_RUN = {"Lint, tests, the long tests": "it runs these tests"}

HERE = {TOKEN, PAGES, PYPI, RELEASE, ALERT}


def steps() -> list[tuple[str, str, str]]:
    """Returns workflow, job and name of every step."""
    return [
        (path.stem, job, step["name"])
        for path in WORKFLOWS
        for job, body in yaml.safe_load(path.read_text())["jobs"].items()
        for step in body["steps"]
    ]


def places(name: str) -> list[tuple[str, str]]:
    return [(workflow, job) for workflow, job, step in steps() if step == name]


def test_every_step_is_run_by_a_test() -> None:
    assert {name for _, _, name in steps()} == HERE | set(ELSEWHERE) | set(NOT_RUN)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts programs on the path that write down how they are called."""
    binaries, calls = tmp_path / "bin", tmp_path / "calls"
    binaries.mkdir()
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, body: str = "") -> Path:
        program = binaries / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n{body}\n')
        program.chmod(0o755)
        return calls

    return make


@pytest.mark.parametrize(("workflow", "job"), places(TOKEN))
def test_a_job_gets_a_token_of_its_own_role(
    workflow: str,
    job: str,
    stand_in: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roles = {"vars.AWS_ROLE_BUILD": "arn:builder", "vars.AWS_ROLE_PUBLISH": "arn:publisher"}
    runner = Runner(tmp_path, workflow, **roles, **{"vars.STORE": "s", "vars.AWS_REGION": "r"})
    stand_in("curl", 'echo \'{"value": "a.b.c"}\'')
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x/?a=b")
    done = runner.run(job, TOKEN)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    role = "arn:publisher" if job == "publish" else "arn:builder"
    token = runner.temp / "bucket-token"
    assert (runner.temp / "env").read_text() == (
        f"AWS_WEB_IDENTITY_TOKEN_FILE={token}\nAWS_ROLE_ARN={role}\n"
    )
    token.unlink()  # ends its renewal


def test_the_site_goes_to_pages(tmp_path: Path) -> None:
    remote = tmp_path / "owner" / "name"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    values = {
        "github.server_url": f"file://{tmp_path}", "github.repository": "owner/name",
        "github.token": "t", "vars.STORE": "s", "vars.AWS_REGION": "r",
    }  # fmt: skip
    runner = Runner(tmp_path, "nightly", **values)
    (runner.checkout / "_site").mkdir()
    (runner.checkout / "_site" / "index.html").write_text("hello")
    done = runner.run("publish", PAGES)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["git", "-C", remote, "show", "gh-pages:index.html"], capture_output=True, text=True
    )
    assert shown.stdout == "hello"


def test_a_night_that_fails_calls_somebody(
    stand_in: Callable[[str, str], Path], tmp_path: Path
) -> None:
    values = {
        "github.server_url": "https://example.org", "github.repository": "owner/name",
        "github.run_id": "7", "github.token": "t", "vars.STORE": "s", "vars.AWS_REGION": "r",
    }  # fmt: skip
    calls = stand_in("gh", "")
    done = Runner(tmp_path, "nightly", **values).run("alert", ALERT)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().startswith(
        "gh issue create --title The nightly run failed "
        "--body https://example.org/owner/name/actions/runs/7 has the log"
    )


def test_a_release_hands_its_wheel_and_nothing_else_to_pypi(
    stand_in: Callable[[str, str], Path], tmp_path: Path
) -> None:
    make = 'mkdir -p "$3/bin"; for name in pip uv; do ln -s "$(command -v $name)" "$3/bin"; done'
    for name, body in (("pip", ""), ("uv", ""), ("python3", make)):
        calls = stand_in(name, body)
    runner = Runner(tmp_path, "release")
    (runner.checkout / "dist").mkdir()
    for name in ("caft_zoo-1-py3-none-any.whl", "notes.txt"):
        (runner.checkout / "dist" / name).touch()
    done = runner.run("release", PYPI)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().splitlines()[-1] == (
        "uv publish --trusted-publishing always dist/caft_zoo-1-py3-none-any.whl"
    )


def test_a_release_carries_its_wheel_and_its_sbom(
    stand_in: Callable[[str, str], Path], tmp_path: Path
) -> None:
    values = {
        "github.ref_name": "v1", "github.repository": "owner/name", "github.token": "t",
    }  # fmt: skip
    calls = stand_in("gh", "")
    runner = Runner(tmp_path, "release", **values)
    (runner.checkout / "dist").mkdir()
    for name in ("caft_zoo-1-py3-none-any.whl", "caft_zoo-1.cdx.json", "notes.txt"):
        (runner.checkout / "dist" / name).touch()
    done = runner.run("release", RELEASE)
    assert done.returncode == 0, done.stderr
    assert calls.read_text() == (
        "gh release create v1 dist/caft_zoo-1-py3-none-any.whl dist/caft_zoo-1.cdx.json "
        "--repo owner/name --verify-tag --generate-notes\n"
    )
