"""Our preprocessing is timm's evaluation transform, for that of every manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.goldens import assert_golden, raises_golden
from support.paths import MANIFESTS

from builders.export.backbone import import_timm
from builders.photos.bundled import _GOLDEN, _path, golden_photos
from zoo.inference.preprocess import batch_of, fit, normalise_into, open_photo
from zoo.schema.manifest import CropMode, Fact, Manifest, Preprocess, load_manifests
from zoo.util.errors import RunError

MODELS = tuple(
    {one.preprocess.plain: name for name, one in load_manifests(MANIFESTS).items()}.values()
)
"""A model of each preprocessing that a manifest states."""


@pytest.mark.parametrize("name", MODELS)
def test_a_photo_becomes_what_timm_makes_of_it(name: str, manifests: dict[str, Manifest]) -> None:
    """timm's transform is made of timm's own configuration; nothing of the manifest goes in."""
    timm = import_timm()
    from timm.data import create_transform, resolve_data_config

    preprocess = manifests[name].preprocess
    config = timm.get_pretrained_cfg(manifests[name].timm_name).to_dict()
    is_test = preprocess.size_of == "test"
    own = {}
    if Fact.INPUT_SIZE in manifests[name].deviations:
        own["input_size"] = (3, preprocess.height, preprocess.width)
    theirs = resolve_data_config(own, pretrained_cfg=config, use_test_size=is_test)
    transform = create_transform(**theirs, is_training=False)
    size = preprocess.input_size
    for photo in (_GOLDEN[0], _GOLDEN[1], _GOLDEN[4]):  # square, wide, odd sizes
        image = open_photo(_path(photo))
        for turned in (image, image.rotate(90, expand=True)):
            ours = batch_of([turned], preprocess.plain)
            assert ours.shape == (1, 3, size, size)
            assert ours.dtype == np.float32
            # Pillow 13 resizes tall photos in another order, which rounds a level differently.
            level = 1.01 / 255 / min(preprocess.std)
            squashed = preprocess.crop_mode is CropMode.SQUASH
            differences = np.abs(ours[0] - transform(turned).numpy())
            assert differences.max() < (level if squashed else 1e-3)
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
    with raises_golden(RunError, "inference/no-file", match=r"none\.jpg"):
        open_photo(tmp_path / "none.jpg")
    Image.new("L", (1, 101)).save(tmp_path / "line.png")
    with pytest.raises(RunError, match=r"line\.png.*\b1 x 101\b.*\b100:1\b") as too_long:
        open_photo(tmp_path / "line.png")
    assert_golden("inference/aspect-ratio", too_long.value, {tmp_path: "FOLDER"})
    Image.new("L", (200, 2)).save(tmp_path / "long.png")
    assert open_photo(tmp_path / "long.png").size == (200, 2)


PHOTO_SIZES = [
    (600, 200), (200, 600), (601, 199), (333, 500), (224, 224), (97, 300), (40, 31), (1001, 77),
    (640, 427), (57, 3001), (3001, 57),
]  # fmt: skip
MODES = [
    ("center", 224, 0.875, "bicubic"), ("center", 224, 0.9, "lanczos"),
    ("center", (96, 64), 1.0, "bilinear"), ("center", (64, 97), 0.9, "bicubic"),
    ("center", 448, 1.15, "bicubic"), ("center", (201, 200), 1.15, "bicubic"),
    ("squash", 224, 1.0, "bicubic"), ("squash", 96, 0.9, "bilinear"),
    ("squash", (1024, 768), 1.0, "bilinear"), ("squash", (64, 97), 0.8, "lanczos"),
    ("squash", 96, 1.15, "bicubic"),
    ("border", 224, 1.0, "bicubic"), ("border", 97, 0.9, "bicubic"),
    ("border", (96, 65), 1.0, "lanczos"), ("border", 64, 1.15, "bilinear"),
]  # fmt: skip


@pytest.mark.parametrize(("crop_mode", "size", "crop", "interpolation"), MODES)
def test_every_crop_mode_is_timms_to_the_bit(
    crop_mode: str, size: int | tuple[int, int], crop: float, interpolation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With Pillow's resize in the order in which `fit` calls it: Pillow 13 has another."""
    resize = Image.Image.resize

    def rows_first(image: Image.Image, new: tuple[int, int], how: Image.Resampling) -> Image.Image:
        return resize(resize(image, (new[0], image.height), how), new, how)

    monkeypatch.setattr(Image.Image, "resize", rows_first)
    import_timm()
    from timm.data.transforms_factory import transforms_imagenet_eval

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    preprocess = Preprocess.model_validate(
        {
            "input_size": size, "crop": crop, "crop_mode": crop_mode,
            "interpolation": interpolation, "mean": mean, "std": std,
        }
    )  # fmt: skip
    transform = transforms_imagenet_eval(
        (preprocess.height, preprocess.width), crop_pct=crop, crop_mode=crop_mode,
        interpolation=interpolation, mean=mean, std=std, normalize=False,
    )  # fmt: skip
    for width, height in PHOTO_SIZES:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels)
        expected = transform(image).numpy().transpose(1, 2, 0)
        with monkeypatch.context() as ours:
            ours.setattr(Image.Image, "resize", resize)
            made = fit(image, preprocess)
        assert made.shape == (preprocess.height, preprocess.width, 3)
        assert np.array_equal(made, expected), (width, height)


def test_a_photo_longer_than_its_border_keeps_a_pixel() -> None:
    """Timm fails at it: its shorter side rounds to nothing."""
    preprocess = Preprocess.model_validate(
        {
            "input_size": 32, "crop": 1, "crop_mode": "border", "interpolation": "bicubic",
            "mean": (0, 0.5, 1), "std": (1, 1, 1),
        }
    )  # fmt: skip
    made = fit(Image.new("RGB", (1000, 10), (9, 9, 9)), preprocess)
    assert np.flatnonzero((made == 9).all((1, 2))).tolist() == [15]
    assert made[0, 0].tolist() == [0, 128, 255]
