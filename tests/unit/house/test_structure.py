"""Structure: who imports whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

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


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_the_client_loads_nothing_heavy() -> None:
    loaded = loaded_by("import zoo.cli.main")
    assert not loaded & {*HEAVY, "numpy", "PIL", "jinja2"}


def test_planning_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "import builders.cli.main\nfrom builders.backends import get_backend\n"
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


CANDIDATE_CHECK_MAY_LOAD = {"publish", "verify"}


def test_the_check_of_candidates_stays_lean() -> None:
    """It reads what anybody proposed: whatever it imports, an attacker may reach."""
    code = "import builders.publish.candidate_check; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    rooms = {n.split(".")[1] for n in done.stdout.split() if n.startswith("builders.")}
    assert rooms <= CANDIDATE_CHECK_MAY_LOAD


def test_functions_and_classes_stay_readable() -> None:
    """Ruff caps the complexity of functions; classes have at most 200 lines of code."""
    for folder in ("zoo", "builders"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    lines = code_lines(node)
                    assert lines <= 200, f"{path}: {node.name} has {lines} lines"


def code_lines(node: ast.ClassDef) -> int:
    """Lines of a class, docstrings left out."""
    documents = sum(
        inner.body[0].end_lineno - inner.body[0].lineno + 1
        for inner in ast.walk(node)
        if isinstance(inner, ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(inner) is not None
        and inner.body[0].end_lineno is not None
    )
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1 - documents


def test_no_module_is_loose() -> None:
    """Every module is in a room; ``builders/paths.py`` alone stands beside them."""
    for folder, allowed in (("zoo", set()), ("builders", {"paths.py"})):
        loose = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        assert loose == allowed
