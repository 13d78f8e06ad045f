"""The variables by which a checkout acts on the repository of a catalog."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from builders.run.catalog import checkout_variables
from zoo.repository.repository import Repository
from zoo.schema.records import Kind
from zoo.stores import LocalStore, MemoryStore


def test_defaults_are_left_out_and_folders_are_named_from_the_checkout(tmp_path: Path) -> None:
    def given(store: Path, site: Path, base_url: str = "", manifests: str = "manifests") -> object:
        repository = Repository(LocalStore(store))
        return checkout_variables(repository, site, base_url, ROOT / manifests)

    assert given(ROOT / "_repository-none", ROOT / "_site") == {"STORE": "_repository-none"}
    other = given(tmp_path / "zoo", tmp_path / "site", "https://x.org", "tests/manifests")
    assert other == {
        "STORE": str(tmp_path / "zoo"),
        "SITE": str(tmp_path / "site"),
        "BASE_URL": "https://x.org",
        "MANIFESTS": "tests/manifests",
    }


def test_a_dry_runs_commands_stay_one(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(MemoryStore())
    repository.claim(Kind.DRY_RUN)
    monkeypatch.setattr(MemoryStore, "url", "s3://bucket/zoo")
    found = checkout_variables(repository, ROOT / "_site-seeded", "", ROOT / "manifests")
    assert found == {"STORE": "s3://bucket/zoo", "WEIGHTS": "seeded"}
