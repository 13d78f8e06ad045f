"""A rectangle of a photo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Crop:
    """A rectangle of a photo, mirrored or not.

    Attributes:
        left: Columns to the left of it.
        top: Rows above it.
        width: Pixels.
        height: Pixels.
        flip: Whether it is mirrored.
    """

    left: int
    top: int
    width: int
    height: int
    flip: bool = False
