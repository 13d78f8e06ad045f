"""Records made up for tests of pure functions and of the page."""

from __future__ import annotations

from typing import Any

from zoo.index import EngineEntry, ModelIndex
from zoo.manifest import CatalogText
from zoo.target import RuntimeKind, Target, Toolchain

PREPROCESS = {
    "input_size": 224,
    "size_of": "train",
    "size_reason": "r",
    "crop": 0.875,
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def plain(preprocess: dict[str, Any]) -> dict[str, Any]:
    """A manifest's preprocessing without the reason for its size."""
    return {k: v for k, v in preprocess.items() if not k.startswith("size_")}


def toolchain(kind: RuntimeKind, version: str) -> Toolchain:
    return Toolchain(kind=kind, version=version, os="linux", machine="x86_64")


def engine(*targets: str, **changes: Any) -> EngineEntry:
    line = Target.parse(targets[0]).line
    version = {"ort": "1.32.0", "rtx": "1.7.1.116", "trt": "11.4.0.13"}[line.kind]
    values: dict[str, Any] = {
        "record": "0" * 64,
        "record_file": {"sha256": "2" * 64, "size": 2_000},
        "targets": targets,
        "precision": Target.parse(targets[0]).precision,
        "status": "verified",
        "engine": {"sha256": "1" * 64, "size": 12_345_678},
        "toolchain": toolchain(line.kind, version).model_dump(mode="json"),
        "batch": {"min": 1, "opt": 4, "max": 16},
        "feature_dim": 1280,
        "preprocess": plain(PREPROCESS),
        "dry_run": False,
        "precision_status": "proven",
        "cost": {},
        "created": "2026-01-01T00:00:00Z",
    }
    return EngineEntry.model_validate({**values, **changes})


def model(*engines: EngineEntry, **changes: Any) -> ModelIndex:
    text = CatalogText(title="M", summary="s", characteristics=("c",), use_case="u")
    values: dict[str, Any] = {
        "model": "m",
        "family": "f",
        "timm_name": "m.tag",
        "licence": "mit",
        "origin": "https://example.org/m",
        "weights": "file",
        "feature_dim": 1280,
        "cut": "pooled",
        "preprocess": PREPROCESS,
        "catalog": text,
        "engines": engines,
    }
    return ModelIndex.model_validate({**values, **changes})
