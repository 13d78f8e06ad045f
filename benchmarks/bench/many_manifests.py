"""As many manifests as asked for."""

from __future__ import annotations

from pathlib import Path

from zoo.schema.manifest import Manifest, load_manifests

_ROOT = Path(__file__).resolve().parents[2]


def manifests_of(count: int) -> dict[str, Manifest]:
    """Returns that many manifests, copies of the project's under other names."""
    known = [*load_manifests(_ROOT / "manifests").values()]
    copies = (
        known[number % len(known)].model_copy(update={"id": f"model_{number:03}"})
        for number in range(count)
    )
    return {manifest.id: manifest for manifest in copies}
