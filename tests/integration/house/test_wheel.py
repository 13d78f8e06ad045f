"""The wheel: what pip installs for somebody who only wants to use an engine."""

from __future__ import annotations

import functools
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tomllib
from support.make_farm import Farm
from support.models import LITE
from support.paths import ROOT
from support.workflow_runner import Runner

from zoo.util.errors import TrustError


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A machine that has run a release's steps, up to handing it to the world."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    runner = Runner(tmp_path_factory.mktemp("release"), "release")
    runner.values |= {"github.ref_name": f"v{version}"}
    for step in ("The wheel", "The tag names its version", "In an empty environment"):
        done = runner.run("release", step)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{version}\n")
    runner.values |= {"github.ref_name": "v99"}
    assert runner.run("release", "The tag names its version").returncode == 1
    return runner


@pytest.fixture(scope="module")
def wheel(released: Runner) -> Path:
    (made,) = (released.checkout / "dist").glob("*.whl")
    return made


@pytest.fixture
def over_http(farm: Farm) -> Iterator[str]:
    """The farm's repository behind the plainest of servers."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(farm.store))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_wheel_holds_zoo_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"zoo", "caft_zoo"}
    assert {
        "zoo/py.typed",
        "zoo/schema/targets.toml",
        "zoo/schema/floors.toml",
        "zoo/caft/cache.py",
    } <= set(names)


def test_an_empty_environment_lists_examines_and_pulls(
    released: Runner, farm: Farm, over_http: str, tmp_path: Path
) -> None:
    venv = released.temp / "empty"
    for package in ("torch", "tensorrt", "boto3", "onnxruntime", "sklearn", "safetensors"):
        assert not list(venv.glob(f"lib/python*/site-packages/{package}"))

    def zoo(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(venv / "bin" / "zoo"), *arguments, "--store", over_http],
            capture_output=True, text=True, cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        )  # fmt: skip

    untrusted = zoo("list")
    assert untrusted.returncode == TrustError.exit_code
    assert over_http in untrusted.stderr
    listed = zoo("list", "--trust", f"{farm.store}.keys/root.json")
    assert listed.returncode == 0, listed.stderr
    assert LITE in listed.stdout
    examined = zoo("doctor")
    assert "ok    store" in examined.stdout
    assert "pip install 'caft-zoo[onnxruntime]'" in examined.stdout
    refused = zoo("pull", LITE)
    assert refused.returncode == 11
    assert "ONNX Runtime 1.32" in refused.stderr
    pulled = zoo("pull", LITE, "--target", "cpu-ort1.32-fp32")
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).is_relative_to(tmp_path / ".cache" / "caft-zoo")
    trained = subprocess.run(
        [str(venv / "bin" / "zoo"), "predict", "--head", "h.safetensors", "photo.jpg"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 13
    assert "pip install 'caft-zoo[caft]'" in trained.stderr
