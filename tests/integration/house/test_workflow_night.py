"""A night as the workflow runs it: its own steps, one after the other, on a real S3 server."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.hub_manifests import copy_open
from support.models import LITE, SMALL
from support.paths import MANIFESTS, ROOT
from support.workflow_runner import Runner

from zoo.stores import open_store
from zoo.util.digest import sha256_bytes

PASSPHRASE = "a passphrase"


def keys(folder: Path, store: str) -> str:
    """Makes a repository's keys, registers the runner; returns them as the secret holds them."""
    public, with_keys = folder.parent / "public.pem", ["--keys", folder]
    for command in (
        ["keys", "init", *with_keys],
        ["builders", "key", "--output", public],
        ["builders", "add", "runner", public, "--store", store, *with_keys],
    ):
        subprocess.run(
            [ROOT / ".venv/bin/zoo-farm", *command],
            env={**os.environ, "ZOO_KEYS_PASSPHRASE": PASSPHRASE}, check=True,
        )  # fmt: skip
    return packed(folder)


def packed(folder: Path) -> str:
    """Returns a folder as the workflow's secret holds it: a tar, in base64."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(folder, arcname=".")
    return base64.b64encode(made.getvalue()).decode()


@pytest.mark.full
def test_a_night_of_the_workflow(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_BUILDER_KEY", str(tmp_path / "builder.pem"))
    runner = Runner(
        tmp_path,
        "nightly",
        **{
            "vars.AWS_REGION": "us-east-1",
            "vars.STORE": s3,
            "vars.TARGETS": "cpu",
            "vars.TRT": "",
            "vars.EXECUTOR": "",
            "secrets.KEYS_TAR": keys(tmp_path / "keys", s3),
            "secrets.KEYS_PASSPHRASE": PASSPHRASE,
        },
    )
    manifest = (MANIFESTS / f"{LITE}.toml").read_text()
    only_fp32 = re.sub(r"^precisions = .*$", 'precisions = ["fp32"]', manifest, flags=re.MULTILINE)
    (runner.checkout / "manifests" / f"{LITE}.toml").write_text(only_fp32)
    copy_open(SMALL, runner.checkout / "manifests")  # not locked: it fails

    planned = runner.run("plan", "Plan")
    assert planned.returncode == 0, planned.stderr
    assert runner.outputs["empty"] == "no"
    [work] = json.loads(runner.outputs["matrix"])["include"]
    assert work["models"] == LITE  # what is not locked is nobody's work

    runner.values |= {f"matrix.{name}": str(value) for name, value in work.items()}
    runner.values["matrix.models"] = f"{LITE},{SMALL}"
    built = runner.run("build", "Build and verify")
    assert built.returncode == 2, built.stdout + built.stderr  # make's
    assert "1 published, 1 failed" in built.stdout
    issue = (runner.checkout / "_nightly" / "issue.md").read_text()
    assert re.search(rf"{SMALL}: .*manifests\.lock", issue)
    assert not (runner.checkout / "_site").exists()  # nothing is signed yet

    signed = runner.run("publish", "Check what was built")
    assert signed.returncode == 0, signed.stdout + signed.stderr
    assert f"{LITE}: signed" in signed.stdout
    root = sha256_bytes((runner.temp / "keys" / "root.json").read_bytes())
    shutil.copytree(runner.temp / "keys", tmp_path / "signed-keys")
    for name in ("root.pem", "targets.pem", "builder.pem"):
        (tmp_path / "signed-keys" / name).unlink()
    gone = runner.run("publish", "The keys go")
    assert gone.returncode == 0
    assert not (runner.temp / "keys").exists()
    assert not list(runner.checkout.rglob("*.pem"))
    shown = runner.run("publish", "The catalog")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    report = (runner.checkout / "_site" / "report.html").read_text()
    assert re.search(rf"{SMALL}: .*manifests\.lock", report)
    assert "1 published" in report

    runner.values |= {"vars.ROOT": root, "matrix.gpu": "cpu"}
    proven = runner.run("verify", "Verify what waits")
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert not re.search(r"\d (verified|failed|for other)", proven.stdout)

    again = runner.run("plan", "Plan")
    assert again.returncode == 0
    assert runner.outputs["empty"] == "yes"

    # A quiet night: nothing is new, and that is signed. The keys are packed after the first time.
    runner.values["secrets.KEYS_TAR"] = packed(tmp_path / "signed-keys")
    quiet = runner.run("publish", "Check what was built")
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    assert "0 signed, 0 refused" in quiet.stdout
    timestamp = json.loads(open_store(s3).get("metadata/timestamp.json"))
    assert timestamp["signed"]["version"] == 2

    # Another night: a machine that builds need not trust what others have published.
    other = only_fp32.replace("cpu = { min = 1, opt = 4, max = 16 }", "cpu = { opt = 4, max = 8 }")
    assert other != only_fp32
    (runner.checkout / "manifests" / f"{LITE}.toml").write_text(other)
    runner.values["matrix.models"] = LITE
    built = runner.run("build", "Build and verify")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "1 published" in built.stdout
    assert "no catalog: " in built.stdout
    assert json.loads((runner.checkout / "_nightly" / "run.json").read_text())["failed"] == []
