"""Converts the labels of data sets to class names."""

from __future__ import annotations

import numbers
import re
from typing import Any, Literal

import numpy as np

from zoo.util.errors import DatasetError
from zoo.util.loading import parse_json
from zoo.util.names import escaped

LabelChoice = str | Literal[False] | None
"""The column or field of the label: None for the usual one, False to read no labels at all."""

NO_CLASS_HINT = (
    "a class is a name or a whole number; --no-labels (label=False) makes a cache without labels, "
    "to train on with zoo train-head CACHE --task regression --labels FILE, or --task multi-label"
)
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\d+[eE][+-]\d+")
"""A float as programs write it; ``1e5`` may be the name of a class."""

_NUMBERS = re.compile(r"[+-]?[\d.]+(?:[\s,;|]+[+-]?[\d.]+)+")


class LabelError(DatasetError):
    """A label that does not name a class, such as a float or a list."""


def class_of(label: Any, names: Any = None, of: str = "") -> str | None:
    """Returns the class name of a label, None if there is no label.

    Args:
        label: A name, a number, or None. An empty name and -1 are no label.
        names: Class names by number, if known.
        of: Name of the sample, for messages.

    Raises:
        LabelError: It is a float, a list, or a number without a name. The text of a float or of a
            list is one as well.
    """
    if isinstance(label, bytes):
        label = label.decode("utf-8", "replace")
    if isinstance(label, str):
        label = label.strip()
        if kind := _kind_of_text(label):
            raise LabelError(
                f"{_sample(of)}the label {_short(label)} does not name a class: it is {kind}",
                hint=NO_CLASS_HINT,
            )
        return named(label)
    value = _plain(label)
    if value is None:
        return None
    if isinstance(value, bool) and names is None:
        return str(value)
    if not isinstance(value, numbers.Integral):
        raise LabelError(
            f"{_sample(of)}the label {_short(label)} does not name a class: it is {_kind(value)}",
            hint=NO_CLASS_HINT,
        )
    number = int(value)
    if number == -1:
        return None
    if names is None:
        return str(number)
    if not 0 <= number < len(names):
        raise LabelError(f"{_sample(of)}the label {number} is not one of the {len(names)} classes")
    return escaped(str(names[number]))


def own_class(label: Any, of: str) -> str | None:
    """Returns the class of a label as somebody's own code gives it; a text is a name.

    Args:
        label: A name, a number, or None.
        of: Name of the sample, for messages.

    Raises:
        LabelError: It names no class.
    """
    return named(label) if isinstance(label, str) else class_of(label, None, of)


def named(label: str) -> str | None:
    """Returns the class of a name that stands for one, such as a folder's; None if it is none."""
    label = escaped(label.strip())
    return None if label in ("", "-1") else label


def _kind_of_text(text: str) -> str | None:
    """Returns what a text is if it can't be the name of a class, None if it can be."""
    if _FLOAT.fullmatch(text):
        return "not an integer"
    if _NUMBERS.fullmatch(text):
        return "several numbers"
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        try:
            return _kind(parse_json(text))
        except (ValueError, RecursionError):
            return None
    return None


def _plain(label: Any) -> Any:
    """Converts a numpy or torch scalar to a Python number; returns anything else unchanged."""
    if hasattr(label, "ndim") and hasattr(label, "tolist"):
        return label.tolist() if label.ndim == 0 else list(np.asarray(label))
    return label


def _kind(value: Any) -> str:
    if isinstance(value, numbers.Real):
        return "not an integer"
    return "a list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"


def _sample(of: str) -> str:
    return f"{of}: " if of else ""


def _short(label: Any) -> str:
    text = " ".join(str(label).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
