"""Structure: who imports whom, and what stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
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


CANDIDATE_CHECK_MAY_LOAD = {
    "builders.publish", "builders.verify",
    "zoo.repository", "zoo.runtime", "zoo.schema", "zoo.stores", "zoo.util",
    "cryptography", "_cffi_backend", "_openssl",  # the signatures of builders
    "annotated_types", "numpy", "pydantic", "pydantic_core", "typing_extensions",
    "typing_inspection",
}  # fmt: skip


def test_the_check_of_candidates_stays_lean() -> None:
    """It reads what anybody proposed: whatever it imports, an attacker may reach."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "import builders.publish.candidate_check; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    rooms = {_room(name) for name in done.stdout.split()}
    assert rooms - {None} <= CANDIDATE_CHECK_MAY_LOAD


def _room(module: str) -> str | None:
    """Returns the room of one of our modules, or the package of another; None if Python's own."""
    package, _, rest = module.partition(".")
    if package in ("zoo", "builders"):
        return f"{package}.{rest.partition('.')[0]}" if rest else None
    python = package in sys.stdlib_module_names or package.startswith("_sysconfigdata")
    return None if python else package


LONGEST_CLASS, MOST_COMPLEX = 200, 10


@pytest.mark.parametrize("folder", ["zoo", "builders", "benchmarks", "examples"])
def test_classes_stay_short(folder: str) -> None:
    """Counted from ``class`` to the last line, docstrings included."""
    lengths = {
        f"{path.relative_to(ROOT)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.end_lineno is not None
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_CLASS} == {}


def test_ruff_limits_the_complexity_of_functions() -> None:
    """``make lint`` then finds those that are longer; nothing is exempt."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    lint = tools["ruff"]["lint"]
    assert "C90" in lint["select"]
    assert lint["mccabe"]["max-complexity"] <= MOST_COMPLEX
    exempt = [lint["ignore"], *lint["per-file-ignores"].values()]
    assert not any(rule.startswith("C9") for rules in exempt for rule in rules)
    exceptions = [
        path
        for folder in ("zoo", "builders", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"noqa.*C901", path.read_text(encoding="utf-8"))
    ]
    assert exceptions == []


def test_no_module_is_loose() -> None:
    """Every module is in a room; ``builders/paths.py`` alone stands beside them."""
    for folder, allowed in (("zoo", set()), ("builders", {"paths.py"})):
        loose = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        assert loose == allowed
