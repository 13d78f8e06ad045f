"""The site of the documentation: built without a warning, with every field in its reference."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT

from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.keys import BuildInputs, ExportInputs
from zoo.schema.manifest import Manifest
from zoo.schema.records import Attestation, BuildRecord, ExportRecord


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert re.findall("^[A-Z]+", done.stderr, re.MULTILINE) == ["INFO"] * 3, done.stderr
    return folder


def test_make_counts_warnings() -> None:
    """With ``--quiet``, MkDocs does not see the warnings that ``--strict`` is about."""
    command = ["make", "--no-print-directory", "--dry-run", "PYTHON=python3", "docs"]
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "mkdocs build --strict " in made
    assert "--quiet" not in made.partition("mkdocs build")[2]


@pytest.mark.parametrize(
    ("link", "read"),
    [
        ("[a](ci.md)", "[a](ci.md)"),
        ("[a](gone.md)", "[a](gone.md)"),  # MkDocs warns of it
        ("[a](../../gone.py)", "[a](../../gone.py)"),
        ("[a](../../Makefile)", "a (`Makefile`)"),
        ("[a](../../README.md#read-on)", "[a](../README.md)"),
        ("[a](../adr/)", "[a](../adr/README.md)"),
        ("`[a](../../Makefile)`", "`[a](../../Makefile)`"),
    ],
)
def test_a_link_that_leads_nowhere_stays_for_mkdocs_to_report(link: str, read: str) -> None:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs/site.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    names = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    files = SimpleNamespace(get_file_from_path=lambda name: name if name in names else None)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/nightly.md"))
    config = SimpleNamespace(docs_dir=str(ROOT / "docs"))
    assert hook.on_page_markdown(link, page=page, config=config, files=files) == read


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    made = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    readmes = {path.with_name("index.md") if path.name == "README.md" else path for path in pages}
    assert readmes <= made


def test_the_reference_names_every_field_of_the_code(site: Path) -> None:
    text = (site / "reference/records.html").read_text(encoding="utf-8")
    for model in (
        Manifest, BuildRecord, BuildInputs, ExportRecord, ExportInputs, Attestation, ModelIndex,
        EngineEntry,
    ):  # fmt: skip
        for field in model.__annotations__:
            assert f'id="{model.__module__}.{model.__name__}.{field}"' in text, (model, field)
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    for name in ("zoo.inference.extractor.load", "zoo.caft.cache.FeatureCache", "zoo.util.errors"):
        assert f'id="{name}' in python
    shown = re.findall(r'id="zoo\.[\w.]*?\.(_\w+)"', python)
    assert set(shown) <= {"__call__", "__getitem__", "__len__"}  # nothing private


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"')
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page
