"""Mutated images, tars, lists, caches and heads: a sentence or the right rows, and nothing else.

``FUZZ=4000 pytest tests/integration/caft/test_caft_fuzz.py`` tries that many of each kind.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import tarfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import folder, photo, toy

from zoo.caft import FeatureCache, cache_features, train_head
from zoo.caft.content import digest_of
from zoo.caft.head import Head
from zoo.caft.settings import Settings
from zoo.caft.sources import open_source
from zoo.inference.preprocess import open_photo
from zoo.util.errors import ZooError

CASES = int(os.environ.get("FUZZ", "60"))
SLOWEST = 10.0


@cache
def files() -> tuple[tuple[str, bytes], ...]:
    """Small photos of many formats."""
    made = []
    for kind, suffix, image, options in (
        ("PNG", "png", photo(1, (20, 16)), {}),
        ("JPEG", "jpg", photo(2, (20, 16)), {}),
        ("JPEG", "jpg", photo(3, (20, 16)), {"progressive": True}),
        ("WEBP", "webp", photo(4, (20, 16)), {}),
        ("GIF", "gif", photo(5, (20, 16)), {}),
        ("TIFF", "tif", photo(6, (20, 16)), {"compression": "tiff_lzw"}),
        ("BMP", "bmp", photo(7, (20, 16)), {}),
        ("JPEG2000", "jp2", photo(8, (20, 16)), {}),
        ("PNG", "png", photo(9, (20, 16)).quantize(8), {}),
        ("PNG", "png", Image.fromarray(np.arange(320, dtype=np.uint16).reshape(16, 20)), {}),
    ):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
        image.save(file, kind, **options, **more)
        made.append((suffix, file.getvalue()))
    return tuple(made)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Returns bytes with a few changes: flipped, cut out, doubled, overwritten, or cut off."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(max(1, len(out)))
        size = chance.choice((1, 2, 4, 30))
        match chance.randrange(6):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << chance.randrange(8)
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = out[at : at + size]
            case 3:
                out[at : at + size] = chance.randbytes(size)
            case 4:
                out[at : at + 4] = chance.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
                )
            case _ if chance.random() < 0.3:
                del out[at:]
    return bytes(out)


def rows_are_right(out: Path, contents: dict[str, bytes]) -> None:
    """Checks that each row of a cache is of an image that was given."""
    found = FeatureCache(out, check_complete=False)
    for name, digest, row in zip(found.names(), found.hashes, found.plain, strict=False):
        data = contents[digest.tobytes().hex()]
        expected = toy()([open_photo(io.BytesIO(data))])[0]
        assert np.allclose(row, expected, atol=1e-5), name


Case = Callable[[Path, random.Random], None]


def images(path: Path, chance: random.Random) -> None:
    contents = {}
    (path / "data" / "a").mkdir(parents=True)
    for number in range(10):
        suffix, data = chance.choice(files())
        data = mutated(data, chance)
        contents[digest_of(data)] = data
        (path / "data" / "a" / f"{number}.{suffix}").write_bytes(data)
    exif: Any = chance.choice(("ignore", "apply"))
    card, _ = cache_features(path / "data", toy(), path / "c", exif=exif)
    assert card.samples + card.bad == 10
    if card.samples and exif == "ignore":
        rows_are_right(path / "c", contents)


def tars(path: Path, chance: random.Random) -> None:
    contents = {}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(4):
            suffix, data = chance.choice(files())
            label = chance.choice((b"cat", b"-1", b"7", b"0.5"))
            for extension, content in (
                (suffix, data), ("cls", label), ("json", b'{"label": ' + label + b"}")
            ):  # fmt: skip
                member = tarfile.TarInfo(f"{number}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    data = mutated(file.getvalue(), chance)
    name = "a.tar"
    if chance.random() < 0.3:
        name, data = "a.tar.gz", mutated(gzip.compress(data), chance)
    (path / name).write_bytes(data)
    try:
        cache_features(str(path / name), toy(), path / "c")
    finally:
        with suppress(ZooError, OSError):
            for sample in open_source(path / name):
                content = sample.read()
                contents[digest_of(content)] = content
        with suppress(ZooError):  # it has no rows
            rows_are_right(path / "c", contents)


def lists(path: Path, chance: random.Random) -> None:
    data = folder(path / "data", classes=1, each=3)
    text = "path,label\n" + "".join(f"class0/{n}.png,{n % 2}\n" for n in range(3))
    (data / "l.csv").write_bytes(mutated(text.encode(), chance))
    cache_features(data / "l.csv", toy(), path / "c")
    contents = {digest_of(file.read_bytes()): file.read_bytes() for file in data.rglob("*.png")}
    if FeatureCache(path / "c").card.samples:
        rows_are_right(path / "c", contents)


def caches(path: Path, chance: random.Random) -> None:
    data = folder(path / "data", classes=2, each=4)
    contents = {digest_of(file.read_bytes()): file.read_bytes() for file in data.rglob("*.png")}
    cache_features(data, toy(), path / "c")
    names = "card.json features.npy labels.npy hashes.npy sums.npy samples.jsonl stamps.npy"
    target = chance.choice(names.split())
    file = path / "c" / target
    if file.exists():
        file.write_bytes(mutated(file.read_bytes(), chance))
    with suppress(ZooError):
        use_cache(path / "c", contents)
    with suppress(ZooError):
        cache_features(data, toy(), path / "c")
        use_cache(path / "c", contents)


def use_cache(out: Path, contents: dict[str, bytes]) -> None:
    """Trains on a cache; if it is not refused, its rows are those of the images that it names."""
    made = FeatureCache(out)
    train_head(made, Settings(epochs=1, solver="lbfgs", test=0.3))
    for name, digest, row in zip(made.names(), made.hashes, made.plain, strict=True):
        data = contents[digest.tobytes().hex()]
        assert np.allclose(row, toy()([open_photo(io.BytesIO(data))])[0], atol=1e-5), name


def heads(path: Path, chance: random.Random) -> None:
    (path / "h.safetensors").write_bytes(mutated(head_file(), chance))
    head = Head.load(path / "h.safetensors")
    rows = np.ones((2, head.card.identity.feature_dim), np.float32)
    head.check(toy())
    assert len(head.predict(rows)) == 2


@cache
def head_file() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        cache_features(folder(path / "data", classes=2, each=4), toy(), path / "c")
        head, _ = train_head(FeatureCache(path / "c"), Settings(epochs=1, solver="lbfgs"))
        head.save(path / "h.safetensors")
        return (path / "h.safetensors").read_bytes()


@pytest.mark.parametrize("case", [images, tars, lists, caches, heads])
def test_what_is_damaged_gives_a_sentence_or_the_right_rows(case: Case, tmp_path: Path) -> None:
    warnings.simplefilter("ignore")
    (tmp_path / "x").mkdir()
    beside = sorted(tmp_path.iterdir())
    head_file()
    first = int(os.environ.get("FUZZ_FROM", "0"))
    for seed in range(first, first + max(1, CASES // (10 if case is images else 1))):
        path = tmp_path / "x" / "case"
        path.mkdir()
        started = time.perf_counter()
        try:
            case(path, random.Random(f"{case.__name__} {seed}"))
        except ZooError as error:
            assert error.message
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert time.perf_counter() - started < SLOWEST, f"seed {seed}"
        assert sorted(tmp_path.iterdir()) == beside
        assert [entry.name for entry in (tmp_path / "x").iterdir()] == ["case"]
        shutil.rmtree(path)
