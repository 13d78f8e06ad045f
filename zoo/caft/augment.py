"""Augmentation: several seeded views of an image, kept in the cache beside the plain one.

With features cached, an image can't be changed anew in each epoch; a few fixed views of it are the
next best. A view depends on the seed, the image's digest and the view's number alone: not on the
order of the data set, nor on where a pass was interrupted.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field


class Augmentation(BaseModel):
    """Which views of an image a cache has.

    Attributes:
        count: Random views beside the plain one, which is the first.
        seed: What they are drawn from.
        recipe: How: a crop of 35 to 100 percent of the area, 3:4 to 4:3, flipped half of the
            time, as in the training of most ImageNet weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=0, le=1000)] = 0
    seed: int = 0
    recipe: Literal["crop-flip-1"] = "crop-flip-1"

    @property
    def views(self) -> int:
        """Rows of an image, the plain view included."""
        return 1 + self.count

    def view(self, photo: Image.Image, number: int, digest: str) -> Image.Image:
        """Returns a view of a photo: the photo itself for number 0.

        Args:
            photo: Any size.
            number: Less than :attr:`views`.
            digest: SHA-256 of the photo.
        """
        if number == 0:
            return photo
        random = np.random.default_rng([self.seed % 2**32, number, int(digest[:16], 16)])
        seen = photo.crop(_box(photo.size, random))
        return ImageOps.mirror(seen) if random.random() < 0.5 else seen


def _box(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws left, top, right and bottom of a crop; it lies within the photo."""
    width, height = size
    area = width * height * random.uniform(0.35, 1.0)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    high = min(height, max(1, round(math.sqrt(area / ratio))))
    left = int(random.integers(0, width - wide + 1))
    top = int(random.integers(0, height - high + 1))
    return left, top, left + wide, top + high
