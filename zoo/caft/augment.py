"""Augmentation: several seeded views of an image, cached next to the plain one.

With cached features an image can't be augmented afresh in each epoch; a few fixed views are the
next best thing. A view depends only on the seed, the image's digest and the view's number, not on
the order of the data set or on where a pass was interrupted.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from zoo.inference.crop import Crop

MOST_VIEWS = 1000
"""Random views of an image besides the plain one."""


MOST_SEED = (1 << 63) - 1
"""Largest seed; JSON of a card may be read by programs whose integers have 64 bits."""


class Augmentation(BaseModel):
    """The views of each image in a cache.

    Attributes:
        count: Number of random views besides the plain one, which comes first.
        seed: Random seed of the views.
        recipe: How views are drawn: a crop of 35 to 100 percent of the area with an aspect ratio
            from 3:4 to 4:3, flipped half of the time, as most ImageNet weights were trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=0, le=MOST_VIEWS)] = 0
    seed: int = 0
    recipe: Literal["crop-flip-1"] = "crop-flip-1"

    @property
    def views(self) -> int:
        """Rows per image, the plain view included."""
        return 1 + self.count

    def view(self, photo: Image.Image, number: int, digest: str) -> Image.Image:
        """Returns a view of a photo: the photo itself for number 0.

        Args:
            photo: A photo of any size.
            number: Number of the view, less than :attr:`views`.
            digest: SHA-256 of the photo.
        """
        if number == 0:
            return photo
        crop = self.crop(photo.size, number, digest)
        box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        cropped = photo.crop(box)
        return ImageOps.mirror(cropped) if crop.flip else cropped

    def crop(self, size: tuple[int, int], number: int, digest: str) -> Crop:
        """Returns the rectangle of a photo that a view is made of: all of it for number 0.

        Args:
            size: Width and height of the photo.
            number: Number of the view, less than :attr:`views`.
            digest: SHA-256 of the photo.
        """
        if number == 0:
            return Crop(0, 0, *size)
        random = np.random.default_rng([self.seed % 2**32, number, int(digest[:16], 16)])
        return _draw(size, random)


def _draw(size: tuple[int, int], random: np.random.Generator) -> Crop:
    """Draws a crop within a photo."""
    width, height = size
    area = width * height * random.uniform(0.35, 1.0)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    high = min(height, max(1, round(math.sqrt(area / ratio))))
    left = int(random.integers(0, width - wide + 1))
    top = int(random.integers(0, height - high + 1))
    return Crop(left, top, wide, high, flip=bool(random.random() < 0.5))
