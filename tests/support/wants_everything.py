"""A request for every engine that the targets table allows; imports only what a plan does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builders.photos.calibration import CalibrationSet
from builders.planning.request import Request
from builders.toolchains.elsewhere import Places
from zoo.schema.manifest import Manifest
from zoo.schema.targets import Arch, Toolchain, gpu_lines, served_archs

CALIBRATION = CalibrationSet(source="folder", paths=(), digests=())


def everywhere() -> Places:
    """Every runtime line, on every GPU that it serves, on machines that are elsewhere."""
    lines = []
    for line in gpu_lines():
        chain = Toolchain(
            kind=line.kind, version=f"{line.version}.0.1", cuda=13, os="linux", machine="x86_64"
        )
        lines.append({Arch(name): chain for name in served_archs(line)})
    archs = frozenset(arch for one in lines for arch in one)
    return Places(lines=tuple(lines), elsewhere=archs, here=frozenset())


def request(manifests: Mapping[str, Manifest], **changes: Any) -> Request:
    """What a plan of everything is asked for, seeded."""
    values: dict[str, Any] = {
        "manifests": manifests, "manifest_dir": Path("manifests"), "places": everywhere(),
        "precisions": None, "weights": "seeded", "calibration": CALIBRATION,
        "failures": Path("_failures"),
    }  # fmt: skip
    return Request(**{**values, **changes})
