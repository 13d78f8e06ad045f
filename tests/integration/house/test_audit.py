"""`make audit` and `make sbom`: licences, advisories and the list of what users install."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_servers import Quiet, serving
from support.paths import ROOT

from builders.cli import images as cli_images
from builders.executors import images
from zoo.util.errors import UsageError

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("audit")]  # make creates one environment

ADVISED = "numpy"


class Advisories(Quiet):
    """An OSV server that knows one advisory, on one package."""

    known = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = self.known and asked["package"]["name"] == ADVISED
        advisory = {"id": "PYSEC-0000-1", "summary": "a test", "affected": [], "aliases": []}
        body = json.dumps({"vulns": [advisory]} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with serving(Advisories) as url:
        yield {
            **os.environ,
            "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
            "PIP_AUDIT_OSV_URL": url,
        }


def make(goal: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", goal], cwd=ROOT, env=environment, capture_output=True,
        text=True, timeout=900,
    )  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
def test_an_advisory_fails_the_audit(
    known: bool, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Advisories, "known", known)
    done = make("audit", environment)
    assert (done.returncode != 0) == known, done.stdout + done.stderr
    assert ("PYSEC-0000-1" in done.stdout) == known


def test_a_licence_that_is_not_listed_fails_the_audit(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.pip-licenses]\nallow-only = "MIT"\n')
    made = make("_work/audit/.ready", dict(os.environ))
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        [ROOT / "_work/audit/bin/pip-licenses", "--python", ROOT / ".venv/bin/python"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0


def test_an_image_has_an_sbom(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("_work/audit/.ready", environment)
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\necho \"$@\" >&2\nprintf 'numpy==2.4.6\\ncaft-zoo @ file:///opt/farm\\n'\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cli_images, "ROOT", tmp_path)
    program = str(ROOT / "_work/audit/bin/cyclonedx-py")
    cli_images.write_sbom(images.image_of("11.4"), program)
    sbom = json.loads((tmp_path / "dist/builder-trt11_4.cdx.json").read_text())
    assert {part["name"] for part in sbom["components"]} == {"numpy", "caft-zoo"}
    docker.write_text("#!/bin/sh\necho 'no such image' >&2\nexit 125\n")
    with pytest.raises(UsageError, match="no such image"):
        cli_images.write_sbom(images.image_of("11.4"), program)


def test_the_sbom_lists_what_users_install() -> None:
    done = make("sbom", dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (ROOT / "dist").glob("caft_zoo-*.cdx.json")
    sbom = json.loads(path.read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    versions = {part["name"].lower(): part["version"] for part in sbom["components"]}
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert {"caft-zoo", "numpy", "onnxruntime", "boto3", "torch"} <= versions.keys()
    assert {"pip", "pytest", "timm"}.isdisjoint(versions)
    assert versions["onnxruntime"] == pins["onnxruntime"]
    licences = {part["name"]: part.get("licenses") for part in sbom["components"]}
    assert licences["onnxruntime"][0]["license"]["id"] == "MIT"
