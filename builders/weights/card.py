"""What a hub repository states about itself, which may differ from timm and from a manifest.

Its card, ``README.md``, states the licence; ``config.json`` the architecture and tag that timm
loads it as, and the title of the card the same where there is no such file.
"""

from __future__ import annotations

import re
from pathlib import Path

from zoo.schema.manifest import Fact, HubWeights, Manifest
from zoo.util.errors import ManifestError
from zoo.util.loading import parse_json, read_text

_CARD, _CONFIG = "README.md", "config.json"
_TITLE = re.compile(r"^# Model card for ([\w.]+)\s*$", re.MULTILINE)


def check_card(manifest: Manifest, revision: str) -> None:
    """Compares a manifest's licence, architecture and tag with those of its hub repository.

    What the repository does not state, or can't be fetched, is not compared.

    Args:
        manifest: A model with weights from a hub.
        revision: Commit of the repository.

    Raises:
        ManifestError: It states something else, and the manifest gives no reason.
    """
    weights = manifest.weights
    if not isinstance(weights, HubWeights):
        return
    where = f"{weights.repository}@{revision[:12]}"
    _compare(
        manifest, Fact.LICENCE, manifest.licence,
        card_licence(weights.repository, revision), f"the card of {where}",
    )  # fmt: skip
    _compare(
        manifest, Fact.TAG, manifest.timm_name,
        stated_name(weights.repository, revision) if manifest.tag else None, where,
    )  # fmt: skip


def _compare(manifest: Manifest, fact: Fact, ours: str, theirs: str | None, whose: str) -> None:
    if theirs in (None, ours) or fact in manifest.deviations:
        return
    raise ManifestError(
        f"{manifest.id}: {fact}: the manifest says '{ours}', {whose} says '{theirs}'",
        hint="correct the manifest; or, if it is meant, say why in its table "
        f'[deviations]: {fact} = "..."',
    )


def stated_name(repository: str, revision: str) -> str | None:
    """Returns timm's name of the weights in a repository, ``resnet50.a1_in1k``.

    Args:
        repository: ``timm/resnet50.a1_in1k``.
        revision: Commit of the repository.

    Returns:
        The name; None if the repository states none, or one without a tag.
    """
    if (config := _fetched(repository, _CONFIG, revision)) is not None:
        try:
            stated = parse_json(read_text(config))
            arch, tag = stated["architecture"], stated["pretrained_cfg"]["tag"]
        except (ValueError, LookupError, TypeError):
            arch = tag = None
        if isinstance(arch, str) and isinstance(tag, str) and tag:
            return f"{arch}.{tag}"
    if (card := _fetched(repository, _CARD, revision)) is None:
        return None
    title = _TITLE.search(card.read_text(encoding="utf-8", errors="replace"))
    return title[1] if title is not None and "." in title[1] else None


def _fetched(repository: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except Exception:  # no such file, or no network; each has its own class
        return None


def card_licence(repository: str, revision: str) -> str | None:
    """Returns the licence that a repository's card states, in lower case; None if it states none.

    Args:
        repository: ``timm/resnet50.a1_in1k``.
        revision: Commit of the repository.
    """
    from huggingface_hub.repocard import metadata_load

    path = _fetched(repository, _CARD, revision)
    try:
        metadata = (metadata_load(path) or {}) if path is not None else {}
    except Exception:  # no metadata in it, of one kind or another
        return None
    licence, name = metadata.get("license"), metadata.get("license_name")
    if licence == "other" and isinstance(name, str):
        licence = name
    return licence.lower() if isinstance(licence, str) and licence != "other" else None
