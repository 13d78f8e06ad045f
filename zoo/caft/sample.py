"""A sample of a data set, whatever its source: a name, a label and a way to read the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""Suffixes of image files, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a data set.

    Attributes:
        name: What people call it: its path in the folder, its key in the tar.
        label: The name of its class, None where it has none.
        read: Returns the image: the bytes of its file, a Pillow image, uint8 pixels, or ready
            input; or an :class:`Item`, where the label comes with it. Called once, in another
            thread.
        key: What makes it another one than those of the same name; the name when empty.
        path: Its file, None where it has none of its own.
    """

    name: str
    label: str | None
    read: Callable[[], Any]
    key: str = ""
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """An image whose label is known no sooner than the image."""

    image: Any
    label: str | None


Source = Iterable[Sample]
