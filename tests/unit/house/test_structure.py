"""Structure: who imports whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

STAGES = {"plan", "weights", "backbone", "export", "precision", "verify", "benchmark", "publish"}
HEAVY = (
    "torch",
    "timm",
    "onnx",
    "onnxruntime",
    "tensorrt_rtx",
    "polygraphy",
    "boto3",
    "distributed",
)


def imports(path: Path) -> set[str]:
    """Dotted names of all that a module imports, at any depth of it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_zoo_never_imports_builders() -> None:
    for path in (ROOT / "zoo").rglob("*.py"):
        assert not any(name.split(".")[0] == "builders" for name in imports(path)), path


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_stages_do_not_import_each_other(stage: str) -> None:
    folder = ROOT / "builders" / stage
    paths = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert paths
    for path in paths:
        others = {
            name
            for name in imports(path)
            for other in STAGES - {stage}
            if name == f"builders.{other}" or name.startswith(f"builders.{other}.")
        }
        assert not others, f"{path} imports {others}"


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_the_client_loads_nothing_heavy() -> None:
    loaded = loaded_by("import zoo.cli")
    assert not loaded & {*HEAVY, "numpy", "PIL", "jinja2"}


def test_planning_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "import builders.cli\nfrom builders.backends import get_backend\n"
        "from zoo.schema.runtimes import Runtime\n"
        "for kind in Runtime: get_backend(kind)"
    )
    assert not loaded & set(HEAVY)


def test_a_build_needs_no_torch(tmp_path: Path) -> None:
    assert not loaded_by("import builders.worker, builders.verify, builders.verify.benchmark") & {
        "torch",
        "timm",
        "onnx",
    }


def test_modules_stay_readable() -> None:
    for folder in ("zoo", "builders"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= 400, f"{path} has {lines} lines: is it one thing?"
