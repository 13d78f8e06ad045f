"""Judges photos for calibration: near-duplicates, flat pictures and noise measure nothing new.

Near-duplicates have almost the same 64-bit difference hash and the same thumbnail: of frames of one
scene, the distance to the nearest other photo is so small that any rounding seems large beside it.
Mirrored and turned copies, of folders that were augmented for training, are recognised, too, and so
are pans and zooms (:mod:`builders.photos.overlap`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict

from builders.photos.overlap import View, overlap

_BITS = 10
"""Most bits of the hash in which near-duplicates differ; unrelated photos differ in about 32."""

_ALIKE = 0.9
"""Least correlation of the thumbnails of near-duplicates; text pages share a hash but not this."""

_SMALL = 144
"""Side of what is mirrored and turned: a multiple of the sizes of hash and thumbnail."""

_FLAT = 2.0
"""Largest standard deviation of a flat picture's thumbnail, in grey levels of 256."""


_NOISE = 0.1
"""Largest correlation of neighbouring pixels of noise; photos, even of grass, have over 0.7."""


class Look(BaseModel):
    """What a photo is recognised by.

    Attributes:
        bits: Its difference hash: whether each pixel of a 9 x 8 thumbnail is darker than the next.
        thumbnail: A 16 x 16 thumbnail, without its mean and of length 1; None of a flat picture
            or noise.
        turned: Both of its mirrored and turned copies.
        view: What its overlap with other photos is recognised by; None likewise.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    bits: int
    thumbnail: tuple[float, ...] | None
    turned: tuple[tuple[int, tuple[float, ...]], ...] = ()
    view: View | None = None

    @property
    def orientations(self) -> list[tuple[int, npt.NDArray[np.float64]]]:
        """Bits and thumbnail of the photo as it is, and of its copies; none if it shows nothing."""
        if self.thumbnail is None:
            return []
        copies = ((self.bits, self.thumbnail), *self.turned)
        return [(bits, np.array(thumbnail)) for bits, thumbnail in copies]


def look_of(photo: Image.Image) -> Look:
    """Returns what a photo is recognised by."""
    grey = photo.convert("L")
    bits, thumbnail = _bits(grey), _thumbnail(grey)
    if _shows_nothing(grey, thumbnail):
        return Look(bits=bits, thumbnail=None)
    small = grey.resize((_SMALL, _SMALL), Image.Resampling.BOX)
    copies = [small.transpose(how) for how in Image.Transpose]
    return Look(
        bits=bits,
        thumbnail=_normalised(thumbnail),
        turned=tuple((_bits(copy), _normalised(_thumbnail(copy))) for copy in copies),
        view=View(photo),
    )


def _shows_nothing(grey: Image.Image, thumbnail: npt.NDArray[np.float64]) -> bool:
    """Whether a picture is flat, or noise."""
    pixels = np.asarray(grey, np.float32)
    if thumbnail.std() <= _FLAT and pixels.std() <= _FLAT:
        return True
    centred = pixels - pixels.mean()
    power = float(np.square(centred).mean())
    beside = float((centred[:, 1:] * centred[:, :-1]).mean()) if grey.width > 1 else power
    below = float((centred[1:] * centred[:-1]).mean()) if grey.height > 1 else power
    return max(abs(beside), abs(below)) < _NOISE * power


def _bits(grey: Image.Image) -> int:
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    return int("".join("01"[bit] for bit in (small[:, 1:] > small[:, :-1]).ravel().tolist()), 2)


def _thumbnail(grey: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float64).ravel()


def _normalised(thumbnail: npt.NDArray[np.float64]) -> tuple[float, ...]:
    centred = thumbnail - thumbnail.mean()
    length = float(np.linalg.norm(centred)) or 1.0
    return tuple((centred / length).tolist())


def judge(looks: list[Look]) -> list[int | None]:
    """Returns the first photo that each one is a near-duplicate of: itself if it is distinct.

    None for a flat picture or noise.
    """
    distinct: dict[int, tuple[int, npt.NDArray[np.float64]]] = {}
    firsts: list[int | None] = []
    for number, look in enumerate(looks):
        orientations = look.orientations
        if not orientations:
            firsts.append(None)
            continue
        first = next(
            (other for other, known in distinct.items() if _are_alike(known, orientations)), None
        )
        if first is None:
            first = next((other for other in distinct if _overlap(looks[other], look)), None)
        if first is None:
            distinct[number] = orientations[0]
        firsts.append(number if first is None else first)
    return firsts


def _overlap(one: Look, other: Look) -> bool:
    return one.view is not None and other.view is not None and overlap(one.view, other.view)


def _are_alike(
    known: tuple[int, npt.NDArray[np.float64]],
    orientations: list[tuple[int, npt.NDArray[np.float64]]],
) -> bool:
    """Whether a photo is, in one of its orientations, a near-duplicate of a known one."""
    return any(
        (known[0] ^ bits).bit_count() <= _BITS and float(known[1] @ thumbnail) >= _ALIKE
        for bits, thumbnail in orientations
    )
