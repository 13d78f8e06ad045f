"""The site of the documentation: built without a warning, with every field in its reference."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.keys import BuildInputs, ExportInputs
from zoo.schema.manifest import Manifest
from zoo.schema.records import Attestation, BuildRecord, ExportRecord


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


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


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"')
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page
