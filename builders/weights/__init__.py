"""Weights: which ones a manifest means, and how they get here.

:func:`identify` needs no torch and no network; it is what planning calls. :func:`fetch` brings the
file, checked against its hash; :mod:`builders.weights.state` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

from typing_extensions import assert_never

from builders.weights import hub, pypi, seeded
from builders.weights.mode import WeightsMode
from zoo.schema.keys import WeightsIdentity, WeightsKind
from zoo.schema.manifest import FileWeights, HubWeights, Manifest, PypiWeights
from zoo.util.digest import sha256_file
from zoo.util.errors import UnlockedError, WeightsError


def identify(manifest: Manifest, mode: WeightsMode) -> WeightsIdentity:
    """Says which weights a model is built from.

    Raises:
        UnlockedError: The manifest does not know their revision or hash yet.
    """
    match mode:
        case WeightsMode.SEEDED:
            return WeightsIdentity(
                kind=WeightsKind.SEEDED,
                source=f"seeded, seed {seeded.SEED}",
                digest=seeded.recipe_key(seeded.recipe(manifest)),
            )
        case WeightsMode.MANIFEST:
            return _identify(manifest)
        case _:
            assert_never(mode)


def _identify(manifest: Manifest) -> WeightsIdentity:
    weights = manifest.weights
    match weights:
        case HubWeights():
            if not weights.locked:
                raise UnlockedError(
                    f"{manifest.id}: weights are unlocked: the manifest does not know the revision "
                    f"and hash of {weights.repository}",
                    hint=f"with network: .venv/bin/zoo-farm lock {manifest.id}; "
                    "for a dry run: WEIGHTS=seeded",
                )
            kind, source = WeightsKind.HUB, f"{weights.repository} {weights.file}"
        case PypiWeights():
            kind, source = WeightsKind.PYPI, f"PyPI {weights.package} {weights.version}"
        case FileWeights():
            kind, source = WeightsKind.FILE, f"file {Path(weights.path).name}"
        case _:
            assert_never(weights)
    return WeightsIdentity(kind=kind, source=source, digest=weights.sha256)


def fetch(manifest: Manifest, manifest_dir: Path) -> Path:
    """Brings the file of a manifest's weights, checked against its hash.

    Returns:
        The file; it may lie in a cache and is not to be changed.

    Raises:
        WeightsError: It can't be had, or is not what the manifest says.
    """
    weights = manifest.weights
    match weights:
        case HubWeights():
            return hub.fetch(manifest.id, weights)
        case PypiWeights():
            return pypi.fetch(manifest.id, weights, cache_dir())
        case FileWeights():
            return _local(manifest.id, weights, manifest_dir)
        case _:
            assert_never(weights)


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
