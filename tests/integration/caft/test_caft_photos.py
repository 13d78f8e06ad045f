"""One photo, one answer: by path, as bytes, Pillow image, Hugging Face row, tar member or array."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.caft import hiding, photo, toy
from support.goldens import assert_golden

from zoo.caft import FeatureCache, cache_features
from zoo.caft.content import digest_of
from zoo.inference.preprocess import as_rgb, open_photo
from zoo.util.errors import CacheError, RunError

datasets.disable_progress_bars()

PHOTO = photo(5, (60, 40))
GREY16 = np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def odd_photos() -> dict[str, bytes]:
    """Photos of all kinds; those whose name starts with ``no_`` are refused."""
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "rgb.png": (PHOTO, "PNG", {}),
        "grey16.png": (Image.fromarray(GREY16), "PNG", {}),
        "grey16.tif": (Image.fromarray(GREY16), "TIFF", {}),
        "grey16be.tif": (Image.fromarray(GREY16.astype(">u2")), "TIFF", {}),
        "cmyk.jpg": (PHOTO.convert("CMYK"), "JPEG", {}),
        "palette.png": (PHOTO.quantize(16), "PNG", {"transparency": 3}),
        "greyalpha.png": (PHOTO.convert("LA"), "PNG", {}),
        "alpha.webp": (PHOTO.convert("RGBA"), "WEBP", {"lossless": True}),
        "bits.png": (PHOTO.convert("1"), "PNG", {}),
        "ycbcr.tif": (PHOTO.convert("YCbCr"), "TIFF", {}),
        "no_float.tif": (PHOTO.convert("F"), "TIFF", {}),
        "no_int.tif": (PHOTO.convert("I"), "TIFF", {}),
        "no_thin.png": (Image.new("RGB", (2, 500)), "PNG", {}),
        **{f"turned{n}.jpg": (PHOTO, "JPEG", {"exif": turned(n)}) for n in range(2, 9)},
        "turned6.png": (PHOTO, "PNG", {"exif": turned(6)}),
        "turned6.webp": (PHOTO, "WEBP", {"exif": turned(6), "lossless": True}),
        "turned6.tif": (PHOTO, "TIFF", {"exif": turned(6)}),
    }
    files = {}
    for name, (image, kind, options) in made.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        files[name] = file.getvalue()
    return files


PHOTOS = odd_photos()


def by_path(path: Path) -> Any:
    (path / "a").mkdir(parents=True)
    for name, data in PHOTOS.items():
        (path / "a" / name).write_bytes(data)
    return path


def by_list(path: Path) -> Any:
    by_path(path)
    (path / "list.csv").write_text("".join(f"a/{name},x\n" for name in PHOTOS))
    return path / "list.csv"


def in_tar(path: Path) -> Any:
    path.mkdir()
    with tarfile.open(path / "a.tar", "w") as tar:
        for name, data in PHOTOS.items():
            stem, _, suffix = name.partition(".")
            member = tarfile.TarInfo(f"{stem}_{suffix}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path / "a.tar")


def hugging_face(path: Path) -> Any:
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": data, "path": None} for data in PHOTOS.values()]
    return datasets.Dataset.from_dict({"image": rows}, features=features)


class Items(list[Any]):
    """A torch data set."""


def as_bytes(path: Path) -> Any:
    return Items((data, "x") for data in PHOTOS.values())


def as_paths(path: Path) -> Any:
    by_path(path)
    return Items((str(path / "a" / name), "x") for name in PHOTOS)


def as_pillow(path: Path) -> Any:
    return Items((Image.open(io.BytesIO(data)), "x") for data in PHOTOS.values())


SOURCES = [by_path, by_list, in_tar, hugging_face, as_bytes, as_paths, as_pillow]


def expected(exif: Any) -> dict[str, Any]:
    """Features of each photo that can be used, by its pixels."""
    good = {name: data for name, data in PHOTOS.items() if not name.startswith("no_")}
    images = {}
    for name, data in good.items():
        image = Image.open(io.BytesIO(data))
        image.load()
        if exif == "apply":
            from PIL import ImageOps

            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        images[name] = np.asarray(image.convert("RGB"))
    return dict(zip(images, toy()(images.values()), strict=True))


@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("workers", [1, 6], ids=["threads", "processes"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_a_photo_the_same_row(
    source: Any, workers: int, exif: Any, tmp_path: Path
) -> None:
    bad: list[str] = []
    cache_features(
        source(tmp_path / "data"), toy(), tmp_path / "c", exif=exif, workers=workers,
        on_bad=lambda name, why: bad.append(why),
    )  # fmt: skip
    rows = expected(exif)
    cache = FeatureCache(tmp_path / "c")
    order = sorted(rows) if source is by_path else list(rows)
    assert np.allclose(cache.features, [rows[name] for name in order], atol=1e-6)
    assert sorted("defined range" in why for why in bad) == [False, True, True]
    assert sum("aspect ratio" in why for why in bad) == 1


def test_an_extractor_and_a_cache_agree_on_pillow_images() -> None:
    for name, data in PHOTOS.items():
        with Image.open(io.BytesIO(data)) as image:
            if name.startswith("no_"):
                with pytest.raises(RunError):
                    toy()(image)
            else:
                assert np.array_equal(toy()(image), toy()([open_photo(io.BytesIO(data))])), name


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey16be.tif", GREY16.astype(">u2")),
        ("grey16.png", GREY16),
        ("bits.png", np.asarray(PHOTO.convert("1"))),
        ("greyalpha.png", np.asarray(PHOTO.convert("LA"))),
        ("rgb.png", np.asarray(PHOTO)),
    ],
)
def test_pixels_in_an_array_are_those_of_the_file(
    name: str, pixels: npt.NDArray[Any], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(odd_photos()[name])
    by_path, by_array = toy()([str(tmp_path / name)]), toy()([pixels])
    assert np.allclose(by_array, by_path, atol=1e-5)


def test_rows_of_the_other_rule_are_refused(tmp_path: Path) -> None:
    data = by_path(tmp_path / "data")
    cache_features(data, toy(), tmp_path / "c")
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(), tmp_path / "c", exif="apply")
    assert_golden("caft/other_exif", raised.value, hiding(raised.value, tmp_path))


def test_palettes_and_orientations_are_part_of_a_pillow_image() -> None:
    first = PHOTO.quantize(4)
    second = first.copy()
    second.putpalette([255 - value for value in first.getpalette() or ()])
    assert first.tobytes() == second.tobytes()
    assert digest_of(first) != digest_of(second)
    upright, lying = (Image.open(io.BytesIO(PHOTOS[f"turned{n}.jpg"])) for n in (3, 6))
    assert digest_of(upright) != digest_of(lying)


def test_turning_is_pillows(tmp_path: Path) -> None:
    from PIL import ImageOps

    for number in range(1, 9):
        image = PHOTO.copy()
        image.info["exif"] = turned(number).tobytes()
        assert as_rgb(image, "apply").tobytes() == ImageOps.exif_transpose(image).tobytes()
