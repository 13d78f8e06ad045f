"""Lists what a complete repository would hold according to the manifests, for the report."""

from __future__ import annotations

from pathlib import Path

from builders import weights
from builders.weights.locks import read_locked
from builders.weights.mode import WeightsMode
from zoo.catalog.site_report import Expected
from zoo.repository.repository import Repository
from zoo.schema.licences import check_licence
from zoo.schema.manifest import Manifest
from zoo.util.errors import LicenceError, UnlockedError

_NOT_YET = "not built yet"


def expected(repository: Repository, folder: Path) -> Expected:
    """Returns the precisions that manifests ask for, and why models are absent from a repository.

    Args:
        repository: The repository.
        folder: The folder of manifests.

    Raises:
        ManifestError: It is not a folder, or has no manifests, or their lock can't be read.
    """
    index = repository.index()
    there = {row.model for row in index.models} if index else set()
    good, bad = read_locked(folder)
    kind = repository.kind()
    seeded = kind is not None and kind.seeded
    absent = {name: _NOT_YET if seeded else _why(manifest) for name, manifest in good.items()}
    absent |= dict.fromkeys(bad, "the manifest can't be read")
    return Expected(
        precisions={name: tuple(manifest.precisions) for name, manifest in good.items()},
        absent={name: absent[name] for name in sorted(absent) if name not in there},
    )


def _why(manifest: Manifest) -> str:
    try:
        check_licence(manifest.id, manifest.licence)
        weights.identify(manifest, WeightsMode.MANIFEST)
    except LicenceError:
        return f"weights under {manifest.licence} may not be distributed"
    except UnlockedError:
        return "the weights are not locked yet"
    return _NOT_YET
