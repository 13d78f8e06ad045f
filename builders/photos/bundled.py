"""Photos from pip packages: the golden, calibration and statistics sets.

The wheels of scikit-image and scikit-learn contain a few real photos. The golden set consists of
disjoint halves of some of them, the calibration set of others. The statistics set is for seeded
weights only. All its photos are in colour: a channel that sees no colour while its statistics are
computed overflows when it does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.schema.manifest import Preprocess
from zoo.util.digest import sha256_file
from zoo.util.errors import MissingPackageError
from zoo.util.installed_versions import version

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

_GOLDEN = (
    "skimage/data/astronaut.png",
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "skimage/data/rocket.jpg",
    "skimage/data/camera.png",
    "sklearn/datasets/images/china.jpg",
)
_CALIBRATION = (
    "skimage/data/motorcycle_left.png",
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/retina.jpg",
    "skimage/data/coins.png",
    "skimage/data/moon.png",
)
_STATISTICS = (
    "skimage/data/astronaut.png",
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
GOLDEN_COUNT = 2 * len(_GOLDEN)

GOLDEN_BATCH = 4
"""How many golden photos PyTorch computes at once; the last digits of their features depend on it.
"""


def golden_name() -> str:
    """Returns the golden set's name, from the source of its photos; part of the export key."""
    return f"{GOLDEN_COUNT} crops of {len(_GOLDEN)} photos, {_packages()}"


def statistics_name() -> str:
    """Returns the statistics set's name, from its photos' source; part of the seeded recipe."""
    return f"{len(_STATISTICS)} photos, {_packages()}"


def calibration_name() -> str:
    """Returns the source of the bundled calibration photos; part of the export key."""
    return f"shipped with {_packages()}"


def calibration_paths() -> tuple[Path, ...]:
    """Returns the paths of the calibration photos."""
    return tuple(map(_path, _CALIBRATION))


def golden_paths() -> tuple[Path, ...]:
    """Returns the paths of the golden photos."""
    return tuple(map(_path, _GOLDEN))


def golden_digests() -> set[str]:
    """Returns the SHA-256 of each golden photo's file."""
    return set(map(sha256_file, golden_paths()))


def golden_photos(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Returns the golden photos at the network's input size.

    Returns:
        ``(12, size, size, 3)``: two disjoint halves of each of six photos.
    """
    return _pixels(_GOLDEN, preprocess, _halves)


def statistics_photos(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Returns the photos for activation statistics, uncropped, ``(8, size, size, 3)``."""
    return _pixels(_STATISTICS, preprocess, lambda photo: [photo])


def _pixels(
    names: Iterable[str],
    preprocess: Preprocess,
    parts: Callable[[Image.Image], list[Image.Image]],
) -> npt.NDArray[np.uint8]:
    import numpy as np  # late, as what opens photos: plans look at none

    from zoo.inference.preprocess import fit, open_photo

    photos = (open_photo(_path(name)) for name in names)
    return np.stack([fit(part, preprocess) for photo in photos for part in parts(photo)])


def _halves(photo: Image.Image) -> list[Image.Image]:
    width, height = photo.size
    if width >= height:
        boxes = [(0, 0, width // 2, height), (width // 2, 0, width, height)]
    else:
        boxes = [(0, 0, width, height // 2), (0, height // 2, width, height)]
    return [photo.crop(box) for box in boxes]


def _packages() -> str:
    return f"scikit-image {version('scikit-image')}, scikit-learn {version('scikit-learn')}"


def _path(name: str) -> Path:
    package, _, path = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"the golden photos come from {package}, which is not installed",
            hint="pip install -e '.[farm]' -c constraints.txt",
        )
    return Path(spec.submodule_search_locations[0]) / path
