"""The digest of an image's content, which identifies its row in a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from zoo.inference.preprocess import as_photo, orientation_of
from zoo.util.digest import sha256_bytes


def digest_of(image: Any) -> str:
    """Returns the SHA-256 of an image: of its file's bytes, or of its pixels if it has no file.

    Raises:
        RunError: It is not an image.
    """
    if isinstance(image, bytes):
        return sha256_bytes(image)
    if is_preprocessed(image):
        return sha256_bytes(np.ascontiguousarray(image, np.float32).data)
    photo = image if isinstance(image, Image.Image) else as_photo(image)
    orientation = orientation_of(photo)
    state = f"{photo.mode} {photo.size}" + (f" {orientation}" if orientation != 1 else "")
    pixels = photo.convert("RGB") if photo.mode in ("P", "PA") else photo  # expand the palette
    return sha256_bytes(state.encode() + pixels.tobytes())


def is_preprocessed(image: Any) -> bool:
    """Whether an image is preprocessed input rather than a photo."""
    kind = str(getattr(image, "dtype", ""))
    return "float" in kind and not isinstance(image, Image.Image)
