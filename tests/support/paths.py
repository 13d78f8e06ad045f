"""Folders of the checkout, so that no test counts its parents."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
TESTS = ROOT / "tests"
DATA = TESTS / "data"
