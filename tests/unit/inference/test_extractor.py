"""``zoo.load``: photos of any kind in, features out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import PREPROCESS, photo, toy

from zoo.inference.preprocess import batch_of
from zoo.util.errors import RunError


def given(kind: str, images: list[Any], folder: Path) -> Any:
    if kind == "paths":
        for number, image in enumerate(images):
            image.save(folder / f"{number}.png")
        return [folder / f"{number}.png" for number in range(len(images))]
    if kind == "strings":
        return [str(path) for path in given("paths", images, folder)]
    if kind == "pixels":
        return [np.asarray(image) for image in images]
    if kind == "one array of pixels":
        return np.stack([np.asarray(image) for image in images])
    ready = batch_of(images, PREPROCESS)
    return {"pillow": images, "a generator": iter(images), "ready": ready}[kind]


KINDS = [
    "pillow", "a generator", "paths", "strings", "pixels", "one array of pixels", "ready",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind_give_the_same_features(kind: str, tmp_path: Path) -> None:
    images = [photo(number) for number in range(18)]  # more than the engine's largest batch
    with toy() as extractor:
        expected = extractor.session.features(batch_of(images, extractor.preprocess))
        found = extractor(given(kind, images, tmp_path))
    assert found.shape == (18, extractor.feature_dim) == (18, 8)
    assert np.allclose(found, expected, atol=1e-6)


def test_one_photo_is_a_batch_of_one(tmp_path: Path) -> None:
    extractor = toy()
    photo(1).save(tmp_path / "p.png")
    grey = np.full((40, 40), 9, np.uint8)
    for one in (
        photo(1),
        tmp_path / "p.png",
        str(tmp_path / "p.png"),
        bytearray((tmp_path / "p.png").read_bytes()),
        memoryview((tmp_path / "p.png").read_bytes()),
        np.asarray(photo(1)),
        grey,
        [grey],
        [bytearray((tmp_path / "p.png").read_bytes())],
        [memoryview((tmp_path / "p.png").read_bytes())],
    ):
        assert extractor(one).shape == (1, 8)
    for none in ([], np.zeros((0, 40, 40, 3), np.uint8), np.zeros((0, 40, 40, 4), np.uint8)):
        assert extractor(none).shape == (0, 8)


class Tensor:
    """A library's tensor that can't be exported, such as one with a gradient."""

    dtype = "bfloat16"

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it has a gradient")


BAD: list[tuple[Any, str]] = [
    ("nothing.jpg", "nothing.jpg: no such file"),
    (np.zeros((2, 3, 32, 32)), "images are float64"),
    (np.zeros((2, 3, 31, 32), np.float32), r"the engine needs \(N, 3, 32, 32\)"),
    ([np.zeros((4, 4, 5), np.uint8)], r"uint8.*\(4, 4, 5\)"),
    ([np.zeros((0, 4, 3), np.uint8)], r"\(0, 4, 3\)"),
    ([None], r"object.*\(\)"),
    (np.zeros((0, 0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
    (np.float32(1), "expected photos"),
    (np.zeros((), np.uint8), r"expected photos.*\(\)"),
    (np.zeros((2, 3, 32, 32), ">f4"), "images are >f4"),
    ([Image.new("RGB", (0, 0))], "0 x 0 pixels"),
    (Tensor(), "bfloat16.*it has a gradient"),
]


@pytest.mark.parametrize(("images", "words"), BAD, ids=lambda value: str(value)[:20])
def test_unsupported_images_raise_run_error(images: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        toy()(images)
