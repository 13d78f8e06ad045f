"""HEIC, JPEG XL and AVIF: read with their packages, counted and named without them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.caft import folder, photo, toy

from zoo.caft import FeatureCache, cache_features
from zoo.inference import formats
from zoo.inference.preprocess import open_photo
from zoo.util.errors import RunError

KINDS = {".heic": "HEIF", ".jxl": "JXL", ".avif": "AVIF"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    import pillow_heif
    import pillow_jxl  # noqa: F401  # registers itself

    pillow_heif.register_heif_opener()
    folder(tmp_path / "photos", classes=1, each=2)
    for number, (suffix, kind) in enumerate(KINDS.items()):
        photo(50 + number, (64, 48)).save(tmp_path / f"photos/class0/p{suffix}", kind, quality=90)
    return tmp_path / "photos"


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def clear() -> None:
        formats.extra_suffixes.cache_clear()
        formats.register.cache_clear()

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    clear()
    yield
    monkeypatch.undo()
    clear()


def test_they_are_read(photos: Path, tmp_path: Path) -> None:
    card, _ = cache_features(photos, toy(), tmp_path / "c")
    assert (card.samples, card.bad) == (5, 0)
    names = list(FeatureCache(tmp_path / "c").names())
    assert {f"class0/p{suffix}" for suffix in KINDS} < set(names)
    for number, suffix in enumerate(KINDS):
        pixels = np.asarray(open_photo(photos / f"class0/p{suffix}"), np.int16)
        wanted = np.asarray(photo(50 + number, (64, 48)), np.int16)
        assert pixels.shape == wanted.shape
        assert np.abs(pixels - wanted).mean() < 25  # lossy, of noise


@pytest.mark.usefixtures("without_packages")
def test_without_the_packages_they_are_counted_and_named(photos: Path, tmp_path: Path) -> None:
    card, state = cache_features(photos, toy(), tmp_path / "c")
    assert card.samples == 3  # Pillow itself reads AVIF
    assert state.notes == (
        "left out, because pillow_heif is not installed (pip install 'caft-zoo[heic]'): files "
        "with suffix .heic: 1 (class0/p.heic)",
        "left out, because pillow_jxl is not installed (pip install 'caft-zoo[heic]'): files "
        "with suffix .jxl: 1 (class0/p.jxl)",
    )


def packed(photos: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, file in enumerate(sorted((photos / "class0").iterdir())):
            tar.add(file, f"{number}{file.suffix}")
    return path


def test_they_are_read_whatever_their_names_are(photos: Path, tmp_path: Path) -> None:
    for file in (photos / "class0").glob("p.*"):
        file.rename(photos / "class0" / f"as_{file.suffix.removeprefix('.')}")
    (photos / "class0" / "as_heic").rename(photos / "class0" / "heic.jpg")
    card, state = cache_features(photos, toy(), tmp_path / "c")
    assert (card.samples, card.bad, state.notes) == (5, 0, ())


def test_they_are_read_from_tars(photos: Path, tmp_path: Path) -> None:
    card, state = cache_features(packed(photos, tmp_path / "t.tar"), toy(), tmp_path / "c")
    assert (card.samples, card.bad, state.notes) == (5, 0, ())


@pytest.mark.usefixtures("without_packages")
def test_without_the_packages_they_are_named_whatever_their_names_are(
    photos: Path, tmp_path: Path
) -> None:
    tar = packed(photos, tmp_path / "t.tar")
    for file in list((photos / "class0").glob("p.[hj]*")):
        file.rename(photos / "class0" / f"as_{file.suffix.removeprefix('.')}")
    for data in (photos, tar):
        card, state = cache_features(data, toy(), tmp_path / f"{data.name}-c")
        assert card.samples == 3
        heic, jxl = sorted(state.notes)
        assert "pillow_heif is not installed (pip install 'caft-zoo[heic]')" in heic
        assert "pillow_jxl is not installed (pip install 'caft-zoo[heic]')" in jxl


def test_a_torn_file_is_no_traceback(photos: Path) -> None:
    (photos / "torn.heic").write_bytes((photos / "class0/p.heic").read_bytes()[:200])
    with pytest.raises(RunError, match=r"torn\.heic"):
        open_photo(photos / "torn.heic")


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize(("suffix", "package"), [(".heic", "pillow_heif"), (".jxl", "pillow_jxl")])
def test_one_that_is_opened_alone_names_the_package(
    suffix: str, package: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(Image, "OPEN", {"PNG": Image.OPEN["PNG"]})  # as before they register
    monkeypatch.setattr(Image, "ID", ["PNG"])
    path = photos / f"class0/p{suffix}"
    with pytest.raises(RunError) as raised:
        open_photo(path)
    assert str(path) in raised.value.message
    assert f"{package} is not installed (pip install 'caft-zoo[heic]')" in raised.value.message
    assert formats.missing_package((photos / "class0/0.png").read_bytes()[:12]) is None
