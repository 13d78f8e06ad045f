"""Judges the photos of a calibration set: near-duplicates and flat pictures measure nothing new.

Near-duplicates have almost the same 64-bit difference hash and the same thumbnail: of frames of one
scene, the distance to the nearest other photo is so small that any rounding seems large beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict

_BITS = 10
"""Most bits of the hash in which near-duplicates differ; unrelated photos differ in about 32."""

_ALIKE = 0.9
"""Least correlation of the thumbnails of near-duplicates; text pages share a hash but not this."""

_FLAT = 2.0
"""Largest standard deviation of a flat picture's thumbnail, in grey levels of 256."""


class Look(BaseModel):
    """What a photo is recognised by.

    Attributes:
        bits: Its difference hash: whether each pixel of a 9 x 8 thumbnail is darker than the next.
        thumbnail: A 16 x 16 thumbnail, without its mean and of length 1; None of a flat picture.
    """

    model_config = ConfigDict(frozen=True)

    bits: int
    thumbnail: tuple[float, ...] | None


def look_of(photo: Image.Image) -> Look:
    """Returns what a photo is recognised by."""
    grey = photo.convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = int("".join("01"[bit] for bit in (small[:, 1:] > small[:, :-1]).ravel().tolist()), 2)
    thumbnail = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float64).ravel()
    if thumbnail.std() <= _FLAT and np.asarray(grey, np.float32).std() <= _FLAT:
        return Look(bits=bits, thumbnail=None)
    thumbnail -= thumbnail.mean()
    length = float(np.linalg.norm(thumbnail)) or 1.0
    return Look(bits=bits, thumbnail=tuple((thumbnail / length).tolist()))


def judge(looks: list[Look]) -> list[int | None]:
    """Returns the first photo that each one is a near-duplicate of: itself if it is distinct.

    None for a flat picture.
    """
    distinct: list[int] = []
    thumbnails: list[npt.NDArray[np.float64]] = []
    firsts: list[int | None] = []
    for number, look in enumerate(looks):
        if look.thumbnail is None:
            firsts.append(None)
            continue
        thumbnail = np.array(look.thumbnail)
        first = next(
            (
                other
                for other, known in zip(distinct, thumbnails, strict=True)
                if (looks[other].bits ^ look.bits).bit_count() <= _BITS
                and float(known @ thumbnail) >= _ALIKE
            ),
            None,
        )
        if first is None:
            distinct.append(number)
            thumbnails.append(thumbnail)
        firsts.append(number if first is None else first)
    return firsts
