"""The licence on a hub repository's card, which may differ from what timm and a manifest state."""

from __future__ import annotations

from zoo.schema.manifest import Fact, HubWeights, Manifest
from zoo.util.errors import ManifestError

_CARD = "README.md"


def check_card(manifest: Manifest, revision: str) -> None:
    """Compares a manifest's licence with that of the card of its hub repository.

    A repository without a card, or a card that can't be fetched, states nothing.

    Args:
        manifest: A model with weights from a hub.
        revision: Commit of the repository.

    Raises:
        ManifestError: The card states another licence, and the manifest gives no reason.
    """
    weights = manifest.weights
    if not isinstance(weights, HubWeights) or Fact.LICENCE in manifest.deviations:
        return
    stated = card_licence(weights.repository, revision)
    if stated is not None and stated != manifest.licence:
        raise ManifestError(
            f"{manifest.id}: licence: the manifest says '{manifest.licence}', the card of "
            f"{weights.repository}@{revision[:12]} says '{stated}'",
            hint=f"correct manifests/{manifest.id}.toml; or, if it is meant, say why in its table "
            '[deviations]: licence = "..."',
        )


def card_licence(repository: str, revision: str) -> str | None:
    """Returns the licence that a repository's card states, in lower case; None if it states none.

    Args:
        repository: ``timm/resnet50.a1_in1k``.
        revision: Commit of the repository.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.repocard import metadata_load

    try:
        path = hf_hub_download(repository, _CARD, revision=revision)
        metadata = metadata_load(path) or {}
    except Exception:  # no card, no network, or no metadata in it; each has its own class
        return None
    licence, name = metadata.get("license"), metadata.get("license_name")
    if licence == "other" and isinstance(name, str):
        licence = name
    return licence.lower() if isinstance(licence, str) and licence != "other" else None
