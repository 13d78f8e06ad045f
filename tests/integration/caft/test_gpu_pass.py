"""A pass whose photos a GPU prepares, against one with Pillow alone; on a fake GPU."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import PREPROCESS, photo, record
from support.fake_gpu import WIDTH, FakeGpu, expected, open_fake
from support.fake_photos import FakeDecoder, read_in_processes, use_fakes

from zoo.caft import FeatureCache, cache_features
from zoo.caft.card import read_card
from zoo.caft.file_reader import FileReader
from zoo.caft.sample import Sample
from zoo.inference.extractor import Extractor
from zoo.inference.gpu.preparer import Preparer
from zoo.inference.preprocess import batch_of
from zoo.util.errors import RunError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ for the kernels")


@pytest.fixture(
    params=[(), (1,), (2, 3, 4, 5), (1, 2, 3, 4, 5)], ids=["late", "engine", "others", "early"]
)
def gpu(request: pytest.FixtureRequest) -> FakeGpu:
    return FakeGpu(early=request.param, free=1 << 33)


@pytest.fixture
def extractor(gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Extractor]:
    with open_fake(gpu, tmp_path, monkeypatch) as session:
        yield Extractor(session, record(feature_dim=WIDTH))


def data(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_images(folder: Path) -> Path:
    """A folder with every kind of image that a data set may have, most of them no plain JPEG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray((np.arange(48 * 64).reshape(48, 64) * 21).astype(np.uint16))
    files = {
        "plain.jpg": data(photo(1, (64, 48))),
        "tall.jpg": data(photo(2, (40, 90))),
        "grey.jpg": data(photo(3).convert("L")),
        "444.jpg": data(photo(4), subsampling=0),
        "tiny.jpg": data(photo(5, (3, 2))),
        "large.jpg": data(photo(6, (700, 500))),
        "turned.jpg": data(photo(7), exif=exif),
        "progressive.jpg": data(photo(8), progressive=True),
        "cmyk.jpg": data(photo(9).convert("CMYK")),
        "rgb.jpg": data(photo(10), keep_rgb=True),
        "alpha.png": data(photo(11).convert("RGBA"), "PNG"),
        "grey.png": data(photo(12).convert("L"), "PNG"),
        "palette.gif": data(photo(13).convert("P"), "GIF"),
        "deep.png": data(wide, "PNG"),
        "photo.webp": data(photo(14), "WEBP"),
        "line.jpg": data(photo(15, (900, 4))),
        "cut.jpg": data(photo(16))[:-300],
        "no_end.jpg": data(photo(17))[:-2],
        "none.jpg": b"",
        "text.jpg": b"no photo",
        "named.jpg": data(photo(18), "PNG"),
        "bitmap.bmp": data(photo(19), "BMP"),
        "photo.tif": data(photo(20), "TIFF"),
    }
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def rows(cache: FeatureCache) -> dict[str, Any]:
    return dict(zip(cache.names(), cache.features[:], strict=True))


@pytest.mark.parametrize("workers", [2, 5])  # with more than four, processes read and decode
def test_odd_images_have_the_features_that_pillow_gives(
    extractor: Extractor,
    gpu: FakeGpu,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    images, decoder = odd_images(tmp_path / "images"), FakeDecoder(gpu)
    use_fakes(monkeypatch, gpu, decoder)
    read_in_processes(monkeypatch)
    skipped: dict[str, dict[str, str]] = {"auto": {}, "pillow": {}}
    for decode in ("auto", "pillow"):
        cache_features(
            images, extractor, tmp_path / decode, batch=4, workers=workers, decode=decode,
            on_bad=lambda name, why, decode=decode: skipped[decode].update({name: why}),
        )  # fmt: skip
    assert decoder.decoded == 7
    assert skipped["auto"] == skipped["pillow"]
    assert set(skipped["auto"]) == {"cut.jpg", "line.jpg", "no_end.jpg", "none.jpg", "text.jpg"}
    found, wanted = (FeatureCache(tmp_path / decode) for decode in ("auto", "pillow"))
    assert list(found.names()) == list(wanted.names())
    assert np.array_equal(found.features[:], wanted.features[:])
    assert (tmp_path / "auto/hashes.npy").read_bytes() == (
        tmp_path / "pillow/hashes.npy"
    ).read_bytes()
    card = read_card(tmp_path / "auto")
    assert card is not None
    assert decoder.name in card.decoders
    plain = rows(found)["plain.jpg"]
    batch = batch_of([Image.open(images / "plain.jpg")], PREPROCESS)
    assert np.allclose(plain, expected(batch)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("workers", [2, 3])  # with more than two, processes read the files
def test_turned_photos_go_to_pillow(
    extractor: Extractor,
    gpu: FakeGpu,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    images, decoder = odd_images(tmp_path / "images"), FakeDecoder(gpu)
    use_fakes(monkeypatch, gpu, decoder)
    read_in_processes(monkeypatch)
    for decode in ("auto", "pillow"):
        cache_features(
            images, extractor, tmp_path / decode, batch=4, workers=workers, decode=decode,
            exif="apply",
        )  # fmt: skip
    assert decoder.decoded == 6
    found, wanted = (FeatureCache(tmp_path / decode) for decode in ("auto", "pillow"))
    assert np.array_equal(found.features[:], wanted.features[:])


def test_a_pass_goes_on_without_the_processes_that_read(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, decoder = odd_images(tmp_path / "images"), FakeDecoder(gpu)
    use_fakes(monkeypatch, gpu, decoder)
    read_in_processes(monkeypatch)
    cache_features(images, extractor, tmp_path / "wanted", batch=4, workers=1, decode="pillow")
    read = FileReader.read
    asked = 0

    def dying(reader: FileReader, files: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 2:
            reader._process.kill()
        return read(reader, files)

    monkeypatch.setattr(FileReader, "read", dying)
    cache_features(images, extractor, tmp_path / "found", batch=4, workers=3)
    assert asked > 4
    assert decoder.decoded == 7
    found, wanted = (FeatureCache(tmp_path / name) for name in ("found", "wanted"))
    assert np.array_equal(found.features[:], wanted.features[:])


@pytest.mark.parametrize("free", [1 << 33, 1 << 28])
def test_a_second_preparer_takes_part_where_there_is_memory(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(40):
        (images / f"{number:02}.jpg").write_bytes(data(photo(number, (60, 50))))
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))
    gpu.free = free
    taken: list[Preparer] = []
    both = threading.Barrier(2, timeout=20)
    prepare = Preparer.prepare

    def meet(preparer: Preparer, photos: Any, rows: int) -> Any:
        first = preparer not in taken
        taken.append(preparer)
        if first and free > 1 << 30:
            both.wait()  # each has a batch
        elif preparer is taken[0]:
            time.sleep(0.01)  # the batches are finished out of order
        return prepare(preparer, photos, rows)

    monkeypatch.setattr(Preparer, "prepare", meet)
    cache_features(images, extractor, tmp_path / "auto", batch=2)
    assert len(set(taken)) == (2 if free > 1 << 30 else 1)
    cache_features(images, extractor, tmp_path / "pillow", batch=2, decode="pillow")
    found, wanted = (FeatureCache(tmp_path / decode) for decode in ("auto", "pillow"))
    assert list(found.names()) == list(wanted.names())
    assert np.array_equal(found.features[:], wanted.features[:])


def test_a_fault_in_one_of_two_preparers_ends_the_pass(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(40):
        (images / f"{number:02}.jpg").write_bytes(data(photo(number, (60, 50))))
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))
    calls = 0
    prepare = Preparer.prepare

    def fail(preparer: Preparer, photos: Any, rows: int) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise RunError("out of memory")
        return prepare(preparer, photos, rows)

    monkeypatch.setattr(Preparer, "prepare", fail)
    with pytest.raises(RunError):
        cache_features(images, extractor, tmp_path / "cache", batch=2)
    monkeypatch.setattr(Preparer, "prepare", prepare)
    before = len(list(FeatureCache(tmp_path / "cache", check_complete=False).names()))
    assert 2 <= before < 40
    _, state = cache_features(images, extractor, tmp_path / "cache", batch=2)
    assert state.images == 40 - before
    cache_features(images, extractor, tmp_path / "pillow", batch=2, decode="pillow")
    found, wanted = (FeatureCache(tmp_path / name) for name in ("cache", "pillow"))
    assert np.array_equal(found.features[:], wanted.features[:])


def test_random_views_are_those_of_pillow(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = odd_images(tmp_path / "images")
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))
    for decode in ("auto", "pillow"):
        cache_features(images, extractor, tmp_path / decode, augment=3, batch=8, decode=decode)
    found, wanted = (FeatureCache(tmp_path / decode) for decode in ("auto", "pillow"))
    assert np.array_equal(found.features[:], wanted.features[:])


def test_what_the_hardware_fails_on_goes_to_pillow(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(11):
        (images / f"{number:02}.jpg").write_bytes(data(photo(number, (60, 50))))
    middle = data(photo(3, (60, 50)))
    (images / "03.jpg").write_bytes(middle[: len(middle) // 2] + b"\xff\xd9")  # ends too early
    decoder = FakeDecoder(gpu, fails=lambda file: len(file) % 2 == 0 or len(file) < len(middle))
    use_fakes(monkeypatch, gpu, decoder)
    bad: list[str] = []
    for decode in ("gpu", "pillow"):
        cache_features(
            images, extractor, tmp_path / decode, batch=3, decode=decode,
            on_bad=lambda name, why: bad.append(f"{name}: {why}"),
        )  # fmt: skip
    found, wanted = (FeatureCache(tmp_path / decode) for decode in ("gpu", "pillow"))
    assert np.array_equal(found.features[:], wanted.features[:])
    assert bad[: len(bad) // 2] == bad[len(bad) // 2 :]


def test_preprocessed_input_and_photos_in_one_data_set(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))
    ready = np.random.default_rng(3).standard_normal((3, 32, 32), np.float32)
    items: list[Any] = [
        data(photo(1)),
        ready,
        photo(2),
        np.asarray(photo(3)),
        data(photo(4), "PNG"),
    ]
    samples = [
        Sample(name=str(n), label=None, read=lambda item=item: item) for n, item in enumerate(items)
    ]
    cache_features(samples, extractor, tmp_path / "cache", batch=3)
    pictures = [Image.open(io.BytesIO(items[0])), photo(2), photo(3), photo(4)]
    batch = batch_of(pictures, PREPROCESS)
    wanted = expected(np.concatenate([batch[:1], ready[None], batch[1:]]))
    assert np.allclose(FeatureCache(tmp_path / "cache").features[:], wanted, rtol=1e-4, atol=1e-3)


def test_a_source_that_fails_loses_nothing_before_that(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))

    def samples() -> Iterator[Sample]:
        for number in range(7):
            yield Sample(name=str(number), label=None, read=lambda n=number: data(photo(n)))
        raise OSError("the disk is gone")

    class Source:
        def __iter__(self) -> Iterator[Sample]:
            return samples()

    with pytest.raises(OSError, match="the disk is gone"):
        cache_features(Source(), extractor, tmp_path / "cache", batch=2)
    card = read_card(tmp_path / "cache")
    assert card is not None
    assert not card.complete
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))


def test_decoding_on_a_gpu_that_can_not_is_refused(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = odd_images(tmp_path / "images")
    use_fakes(monkeypatch, gpu)
    with pytest.raises(RunError) as refused:
        cache_features(images, extractor, tmp_path / "cache", decode="gpu")
    assert "JPEG decoder" in refused.value.message
    assert not (tmp_path / "cache" / "features.npy").exists()
    card, _ = cache_features(images, extractor, tmp_path / "cache", decode="auto")
    assert len(card.decoders) == 1
    assert card.decoders[0].startswith("Pillow ")


def test_an_extractor_takes_photos_of_all_kinds(
    extractor: Extractor, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))
    path = tmp_path / "photo.jpg"
    path.write_bytes(data(photo(1, (90, 60))))
    kinds: list[Any] = [
        path, str(path), path.read_bytes(), data(photo(2), "PNG"), photo(3), np.asarray(photo(4)),
        np.asarray(photo(5).convert("L")), photo(6).convert("RGBA"),
    ]  # fmt: skip
    pictures = [Image.open(path)] * 3 + [photo(2), photo(3), photo(4)]
    pictures += [photo(5).convert("L"), photo(6)]
    wanted = expected(batch_of(pictures, PREPROCESS))
    assert np.allclose(extractor(kinds), wanted, rtol=1e-4, atol=1e-3)
    assert np.allclose(extractor(path), wanted[:1], rtol=1e-4, atol=1e-3)
    for count in (1, 8, 21):
        stack = np.stack([np.asarray(photo(n, (50, 44))) for n in range(count)])
        wanted = expected(batch_of([photo(n, (50, 44)) for n in range(count)], PREPROCESS))
        assert np.allclose(extractor(stack), wanted, rtol=1e-4, atol=1e-3)
    assert extractor([]).shape == (0, extractor.feature_dim)
    with pytest.raises(RunError) as refused:
        extractor([path, tmp_path / "none.jpg"])
    assert "none.jpg" in refused.value.message
    with pytest.raises(RunError):
        extractor(np.zeros((2, 8, 8, 5), np.uint8))


def test_nothing_stays_on_the_gpu(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes(monkeypatch, gpu, FakeDecoder(gpu))
    with open_fake(gpu, tmp_path, monkeypatch) as session:
        extractor = Extractor(session, record(feature_dim=WIDTH))
        extractor([photo(1)])
        cache_features(odd_images(tmp_path / "images"), extractor, tmp_path / "cache", batch=4)
        extractor.close()
    assert gpu.held() == 0
