"""Our preprocessing is timm's evaluation transform, for every manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.goldens import assert_golden
from support.paths import MANIFESTS

from builders.export.backbone import import_timm
from builders.photos.bundled import _GOLDEN, _path, golden_photos
from zoo.inference.preprocess import batch_of, fit, normalise_into, open_photo
from zoo.schema.manifest import Manifest
from zoo.util.errors import RunError

MODELS = sorted(path.stem for path in MANIFESTS.glob("*.toml"))


@pytest.mark.parametrize("name", MODELS)
def test_a_photo_becomes_what_timm_makes_of_it(name: str, manifests: dict[str, Manifest]) -> None:
    """timm's transform is made of timm's own configuration; nothing of the manifest goes in."""
    timm = import_timm()
    from timm.data import create_transform, resolve_data_config

    preprocess = manifests[name].preprocess
    config = timm.get_pretrained_cfg(manifests[name].timm_name).to_dict()
    is_test = preprocess.size_of == "test"
    theirs = resolve_data_config(pretrained_cfg=config, use_test_size=is_test)
    transform = create_transform(**theirs, is_training=False)
    size = preprocess.input_size
    for photo in (_GOLDEN[0], _GOLDEN[1], _GOLDEN[4]):  # square, wide, odd sizes
        image = open_photo(_path(photo))
        for turned in (image, image.rotate(90, expand=True)):
            ours = batch_of([turned], preprocess.plain)
            assert ours.shape == (1, 3, size, size)
            assert ours.dtype == np.float32
            assert np.abs(ours[0] - transform(turned).numpy()).max() < 1e-3
    one = np.empty((3, size, size), np.float32)  # the way of a feature pass
    normalise_into(one, fit(turned, preprocess.plain), preprocess.plain)
    assert np.abs(ours[0] - one).max() < 1e-6


def test_golden_photos_are_distinct(manifests: dict[str, Manifest]) -> None:
    photos = golden_photos(manifests["resnet50"].preprocess)
    assert photos.shape == (12, 224, 224, 3)
    flat = photos.reshape(12, -1).astype(np.float32)
    gaps = np.linalg.norm(flat[:, None] - flat[None], axis=2) + 1e9 * np.eye(12)
    assert gaps.min() > 0.05 * np.linalg.norm(flat, axis=1).max()


def test_grey_and_transparent_photos_are_taken(manifests: dict[str, Manifest]) -> None:
    preprocess = manifests["resnet50"].preprocess.plain
    for mode in ("L", "RGBA", "P"):
        assert batch_of([Image.new(mode, (50, 300))], preprocess).shape == (1, 3, 224, 224)


def test_what_is_no_photo_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("hello")
    with pytest.raises(RunError, match=r"note\.jpg") as no_image:
        open_photo(tmp_path / "note.jpg")
    assert_golden("inference/no-image", no_image.value, {tmp_path: "FOLDER"})
    with pytest.raises(RunError, match="no such file"):
        open_photo(tmp_path / "none.jpg")
    Image.new("L", (1, 101)).save(tmp_path / "line.png")
    with pytest.raises(RunError, match=r"line\.png.*\b1 x 101\b.*\b100:1\b") as too_long:
        open_photo(tmp_path / "line.png")
    assert_golden("inference/aspect-ratio", too_long.value, {tmp_path: "FOLDER"})
    Image.new("L", (200, 2)).save(tmp_path / "long.png")
    assert open_photo(tmp_path / "long.png").size == (200, 2)
