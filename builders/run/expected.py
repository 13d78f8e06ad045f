"""Expected: what the manifests of a checkout say that there could be, for the catalog's report."""

from __future__ import annotations

from pathlib import Path

from builders import weights
from builders.weights.mode import WeightsMode
from zoo.catalog.site_report import Expected
from zoo.repository.repository import Repository
from zoo.schema.licences import check_licence
from zoo.schema.manifest import Manifest, read_manifests
from zoo.util.errors import LicenceError, UnlockedError

_NOT_YET = "not built yet"


def expected(repository: Repository, folder: Path) -> Expected:
    """Returns what the manifests of a folder would have, beside what a repository has.

    Args:
        repository: Its index says which models there are.
        folder: Of manifests.

    Raises:
        ManifestError: It is no folder, or has none.
    """
    index = repository.index()
    there = {row.model for row in index.models} if index else set()
    good, bad = read_manifests(folder)
    kind = repository.kind()
    seeded = kind is not None and kind.seeded
    absent = {name: _NOT_YET if seeded else _why(one) for name, one in good.items()}
    absent |= dict.fromkeys(bad, "the manifest can't be read")
    return Expected(
        precisions={name: tuple(one.precisions) for name, one in good.items()},
        absent={name: absent[name] for name in sorted(absent) if name not in there},
    )


def _why(manifest: Manifest) -> str:
    try:
        check_licence(manifest.id, manifest.licence)
        weights.identify(manifest, WeightsMode.MANIFEST)
    except LicenceError:
        return f"weights under {manifest.licence} may not be handed out"
    except UnlockedError:
        return "revision and hash of the weights are not in the manifest yet"
    return _NOT_YET
