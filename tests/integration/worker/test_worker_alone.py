"""Build, verify and benchmark need no torch: a worker in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.goldens import raises_golden
from support.installed import installed_inputs
from support.paths import DATA, ROOT

from builders.executors import LocalExecutor
from builders.jobs.messages import BuildJob, BuildOutput
from builders.jobs.progress import silent
from builders.toolchains.interpreter import toolchains_of, worker_command
from zoo.repository.repository import Repository
from zoo.runtime.header import read_file_header
from zoo.stores import LocalStore
from zoo.util.errors import UsageError

TOY = DATA / "toy.onnx"

# TensorRT 8.6 wants CPython 3.10; where there is one, the worker must run on it too.
PYTHONS = [sys.executable]
if (old := shutil.which("python3.10")) and subprocess.run([old, "-c", ""]).returncode == 0:
    PYTHONS.append(old)


@pytest.fixture(scope="module", params=PYTHONS, ids=lambda path: Path(path).name)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with the client, Polygraphy and TensorRT-RTX, and nothing of the exporter's."""
    python: str = request.param
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
    # The constraints pin what this Python gets; another one resolves for itself.
    pins = ["-c", ROOT / "constraints.txt"] if python == sys.executable else []
    subprocess.run([*pip, *pins, f"{ROOT}[rtx,worker]"], check=True)
    return str(folder / "bin" / "python")


def test_there_is_no_torch_and_every_stage_of_a_build_imports(alone: str) -> None:
    code = """
import importlib.util as find
print([name for name in ("torch", "timm", "onnx", "onnxruntime") if find.find_spec(name)])
import builders.backends.tensorrt, builders.verify.benchmark, builders.verify, builders.worker
"""
    done = subprocess.run(
        [alone, "-c", code], cwd=ROOT, capture_output=True, text=True, env=_clean()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_farm_asks_it_what_it_has(alone: str) -> None:
    assert set(toolchains_of(alone)) == {"rtx"}


def test_it_builds_an_engine_from_a_job(alone: str, tmp_path: Path) -> None:
    repository = Repository(LocalStore(tmp_path / "store"))
    onnx = tmp_path / "toy.onnx"
    shutil.copy(TOY, onnx)
    job = BuildJob(
        inputs=installed_inputs("rtx", "sm86"),
        onnx=repository.blobs.add(onnx),
        parameters=216,
        verification=None,
        store=repository.store.url,
    )
    (tmp_path / "output").mkdir()
    executor = LocalExecutor(build_command=worker_command(alone))
    result = executor.run(job, tmp_path / "output", silent).result
    assert isinstance(result, BuildOutput)
    assert read_file_header(tmp_path / "output" / "engine").archs == ("sm86",)


@pytest.mark.parametrize(
    ("python", "golden"), [("/no/such/python", "no-python"), ("/bin/true", "other-program")]
)
def test_a_python_that_will_not_do_is_named(python: str, golden: str) -> None:
    with raises_golden(UsageError, f"worker/{golden}", match=f"BUILDER_PYTHON={python}"):
        toolchains_of(python)


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
