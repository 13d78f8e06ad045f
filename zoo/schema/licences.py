"""Licences that allow publishing engines, and their texts.

An engine contains its model's weights, so publishing it redistributes them. A licence is allowed if
its text is in ``licence_texts``, named by its SPDX identifier.
"""

from __future__ import annotations

from pathlib import Path

from zoo.util.errors import LicenceError

_TEXTS = Path(__file__).with_name("licence_texts")

LICENCE_FILE, NOTICE_FILE = "LICENSE", "NOTICE"
"""Names of the files stored with every engine."""


def allowed_licences() -> tuple[str, ...]:
    """Returns the SPDX identifiers, in lower case, of licences that allow publishing."""
    return tuple(sorted(text.name.removesuffix(".txt") for text in _TEXTS.iterdir()))


def check_licence(model: str, licence: str) -> None:
    """Checks that a model's engines may be published.

    Raises:
        LicenceError: The licence of its weights is not on the list.
    """
    allowed = allowed_licences()
    if licence not in allowed:
        raise LicenceError(
            f"{model}: its weights are under '{licence}', which is not on the list of licences "
            "that allow publishing engines",
            hint=f"the list: {', '.join(allowed)}; to add a licence, read it and put its text "
            "into zoo/schema/licence_texts/",
        )


def licence_text(licence: str) -> str:
    """Returns the text of a licence on the list."""
    return (_TEXTS / f"{licence}.txt").read_text(encoding="utf-8")


def notice_text(*, title: str, model: str, licence: str, origin: str, weights: str) -> str:
    """Returns the NOTICE of an engine, which says where its weights come from.

    Args:
        title: The model's title.
        model: The model's id.
        licence: SPDX identifier of its weights' licence.
        origin: URL of the weights' origin.
        weights: The exact weights.
    """
    return (
        f"{title} ({model})\n\n"
        f"This engine holds pre-trained weights of others, under {licence}; the text is in "
        f"{LICENCE_FILE}.\nTheir copyright notices are kept at their origin:\n\n"
        f"  origin:  {origin}\n  weights: {weights}\n\n"
        "Changes: the classifier was removed, BatchNorm may have been folded, numbers may have "
        "been rounded to a lower precision, and the network compiled for an inference runtime.\n"
    )
