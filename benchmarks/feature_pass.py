"""Benchmarks the feature pass against the bare engine and a plain PyTorch loop, in one run.

The contestants alternate, so that other load on the machine affects all of them alike.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.torch_loop import Network, Stored, TorchLoop
from zoo.caft.augment import Augmentation
from zoo.caft.features import cache_features
from zoo.caft.feed import DecodeMode, open_feed
from zoo.caft.sample import Sample
from zoo.caft.sources import FolderSource
from zoo.cli.main import Parser, run_cli
from zoo.cli.support import add_selection, add_store, positive
from zoo.client.client import default_store
from zoo.client.host import describe_machine
from zoo.inference.extractor import Extractor, load
from zoo.inference.preprocess import batch_of, open_photo
from zoo.runtime.base import DeviceSession, Pipelined, pipeline_of
from zoo.schema.manifest import CropMode, load_manifest
from zoo.schema.precisions import is_lowered
from zoo.schema.records import BuildRecord
from zoo.util.errors import UsageError

_ROWS_AT_ONCE = 256
JPEG_SIZE = (500, 375)
"""The most common size of ImageNet's photos, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The contestants by name: functions that run all images through the network once."""

    named: dict[str, Callable[[], None]]
    images: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The speed of a contestant: the median over the rounds.

    Attributes:
        images_per_second: Images per second.
        cores: Cores that this process and its children were busy with, those of loops left out.
    """

    images_per_second: float
    cores: float


def measure(ways: Ways, rounds: int) -> dict[str, Rate]:
    """Returns the speed of each contestant."""
    for run in ways.named.values():
        run()
    rates: dict[str, list[Rate]] = {name: [] for name in ways.named}
    for _ in range(rounds):
        for name, run in ways.named.items():
            started, busy = time.perf_counter(), _busy()
            run()
            seconds = time.perf_counter() - started
            rate = Rate(images_per_second=ways.images / seconds, cores=(_busy() - busy) / seconds)
            rates[name].append(rate)
            time.sleep(0.2)  # idle thread pools keep spinning for a while
    return {name: _median(measured) for name, measured in rates.items()}


def _median(rates: list[Rate]) -> Rate:
    return Rate(
        images_per_second=statistics.median(rate.images_per_second for rate in rates),
        cores=statistics.median(rate.cores for rate in rates),
    )


def _busy() -> float:
    """Returns the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def ways_of(
    extractor: Extractor, loops: Sequence[TorchLoop], photos: Path, folder: Path, batch: int
) -> Ways:
    """Returns the contestants.

    Args:
        extractor: The engine.
        loops: The same network in PyTorch.
        photos: Folder of JPEG files.
        folder: Folder for caches.
        batch: Batch size.
    """
    files = sorted(photos.rglob("*.jpg"))
    some = files[: min(len(files), 4 * batch)]
    ready = batch_of([open_photo(path) for path in some], extractor.preprocess)
    repeats = len(files) // len(some)
    engine = _EngineAlone(extractor, ready, batch, repeats)
    numbers = iter(range(1 << 30))

    def pass_over(data: Any, decode: DecodeMode = "auto") -> Callable[[], None]:
        def run() -> None:
            cache = folder / str(next(numbers))
            cache_features(data, extractor, cache, batch=batch, decode=decode)
            shutil.rmtree(cache)

        return run

    on_gpu = isinstance(extractor.session, DeviceSession)
    named: dict[str, Callable[[], None]] = {"the engine alone, images ready": engine.run}
    if isinstance(extractor.session, Pipelined):
        named["the engine alone, one batch ahead"] = engine.run_ahead
    if on_gpu:
        named["the GPU's JPEG decoder alone"] = _decoder_alone(extractor, files, batch)
    else:
        named["decoding alone, JPEG files"] = _decoding_alone(extractor, photos, batch)
    named["feature pass, images ready"] = pass_over(_Samples(list(ready) * repeats))
    named["feature pass, JPEG files"] = pass_over(photos)
    if on_gpu:
        named["feature pass, JPEG files, Pillow alone"] = pass_over(photos, "pillow")
    named["feature pass, JPEG files, decoded fast"] = pass_over(photos, "fast")
    named["the disk alone, rows of features"] = _disk_alone(extractor, len(files), folder)
    named |= {f"{loop.name}, JPEG files": loop.run for loop in loops}
    return Ways(named=named, images=len(files))


class _EngineAlone:
    """The engine on images that are ready, again and again."""

    def __init__(self, extractor: Extractor, ready: Any, batch: int, repeats: int) -> None:
        self._session = extractor.session
        self._ready, self._batch = ready, batch
        self._starts = [*range(0, len(ready), batch)] * repeats

    def run(self) -> None:
        """Runs one batch after the other."""
        for start in self._starts:
            self._session.features(self._ready[start : start + self._batch])

    def run_ahead(self) -> None:
        """Begins with a batch before the features of the one before it are taken."""
        with pipeline_of(self._session) as pipeline:
            images = pipeline.host_memory((self._batch, *self._ready.shape[1:]))
            images[:] = self._ready[: self._batch]
            running = None
            for start in self._starts:
                rows = min(self._batch, len(self._ready) - start)
                before, running = running, pipeline.begin(images[:rows])
                if before is not None:
                    before.features()
            if running is not None:
                running.features()


def _decoder_alone(extractor: Extractor, files: list[Path], batch: int) -> Callable[[], None]:
    """Returns a function that decodes files on the GPU and does nothing with them."""
    from zoo.inference.gpu.decoder import HardwareDecoder
    from zoo.inference.gpu.jpeg import JpegFile, plain_jpeg

    device = extractor.session.device  # type: ignore[attr-defined]
    contents = [path.read_bytes() for path in files]
    jpegs = [JpegFile(data, size) for data in contents if (size := plain_jpeg(data))]

    def run() -> None:
        device.set_current()
        stream = device.create_stream()
        with closing(HardwareDecoder(device, stream)) as decoder:
            for start in range(0, len(jpegs), batch):
                decoder.decode(jpegs[start : start + batch], stream)
            stream.sync()
        stream.close()

    return run


def _decoding_alone(extractor: Extractor, photos: Path, batch: int) -> Callable[[], None]:
    """Returns a function that prepares the batches of a pass and does nothing with them."""

    def run() -> None:
        with (
            open_feed(
                extractor, Augmentation(), samples=batch, workers=None, decode="auto"
            ) as feed,
            closing(feed.batches(FolderSource(photos))) as batches,
        ):
            for _ in batches:
                pass

    return run


def _disk_alone(extractor: Extractor, images: int, folder: Path) -> Callable[[], None]:
    """Returns a function that writes as many rows as a pass does, and waits for the disk."""
    rows = np.ones((min(images, _ROWS_AT_ONCE), extractor.feature_dim), np.float32)

    def run() -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, images, _ROWS_AT_ONCE):
                file.write(rows[: images - start].data)
            file.flush()
            os.fsync(file.fileno())

    return run


class _Samples:
    def __init__(self, images: list[Any]) -> None:
        self._images = images

    def __iter__(self) -> Iterator[Sample]:
        for number, image in enumerate(self._images):
            yield Sample(name=f"{number}", label=None, read=partial(_same, image))


def _same(image: Any) -> Any:
    return image


def jpegs(folder: Path | None, count: int, size: tuple[int, int]) -> list[bytes]:
    """Returns JPEG files, repeated up to a count.

    Args:
        folder: Folder of JPEG files; if None, photos from the farm's packages, resized to one size.
        count: Number of files to return.
        size: Width and height of the farm's photos.
    """
    files = (
        _from_packages(size)
        if folder is None
        else [path.read_bytes() for path in sorted(folder.iterdir())]
    )
    return [files[number % len(files)] for number in range(count)]


def _from_packages(size: tuple[int, int]) -> list[bytes]:
    from builders.photos.bundled import calibration_paths, golden_paths

    files = []
    for path in [*calibration_paths(), *golden_paths()]:
        data = io.BytesIO()
        open_photo(path).resize(size, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        files.append(data.getvalue())
    return files


def speed(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints its table."""
    photos = jpegs(options.photos, options.images, tuple(options.size))
    with (
        load(
            options.model,
            store=options.store,
            target=options.target,
            precision=options.precision,
            allow_pending=options.allow_pending,
            allow_seeded=options.allow_seeded,
        ) as extractor,
        tempfile.TemporaryDirectory() as scratch,
        ExitStack() as loops,
    ):
        folder, batch = Path(scratch), options.batch or extractor.batch
        files = write_photos(folder / "photos", photos)
        network = network_of(
            extractor.record,
            Path(options.manifests) / f"{options.model}.toml",
            options.store or default_store(),
            folder / "record.json",
        )
        contestants = [
            loops.enter_context(TorchLoop(options.torch_python, way, network, files, batch))
            for way in options.loops
        ]
        ways = ways_of(extractor, contestants, files, folder, batch)
        rates = measure(ways, options.rounds)
    print(table(rates, extractor, ways.images, batch, options.rounds))
    return 0


def write_photos(folder: Path, photos: Sequence[bytes]) -> Path:
    """Writes JPEG files to a folder, a class for every thousand."""
    for number, photo in enumerate(photos):
        path = folder / f"class{number // 1000}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    return folder


def network_of(record: BuildRecord, manifest_file: Path, store: str, file: Path) -> Network:
    """Returns the network of an engine, whose weights are in the repository.

    Args:
        record: The engine's record.
        manifest_file: The model's manifest.
        store: URL of the repository.
        file: File that the record is written to, for the loops.

    Raises:
        UsageError: The loops have no crop such as the model's.
    """
    file.write_text(record.model_dump_json())
    manifest = load_manifest(manifest_file)
    preprocess = record.inputs.preprocess
    if preprocess.crop_mode is not CropMode.CENTER or preprocess.height != preprocess.width:
        raise UsageError(
            f"{manifest.id}: {preprocess.crop_mode} crop to {preprocess.pixels} pixels: the "
            "loops of PyTorch have only a centre crop to a square",
            hint="name a model of such a crop with --model",
        )
    return Network(
        name=f"{manifest.arch}.{manifest.tag}",
        input_size=preprocess.height,
        crop=preprocess.crop,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        half=is_lowered(record.inputs.precision),
        stored=Stored(manifest=str(manifest_file.resolve()), store=store, record=str(file)),
    )


def table(
    rates: dict[str, Rate], extractor: Extractor, images: int, batch: int, rounds: int
) -> str:
    """Returns the rates as Markdown, relative to the first of them."""
    base = next(iter(rates.values())).images_per_second
    machine = describe_machine()
    where = machine.gpu_name or machine.cpu
    lines = [
        f"{extractor.model}, {extractor.record.targets[0]}, {images} images at batch {batch}, "
        f"median of {rounds} rounds in turns; {where}, {machine.cores} cores.",
        "",
        "| way | images/s | of the engine alone | cores busy |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {rate.images_per_second:,.1f} | {rate.images_per_second / base:.2f} | "
            f"{'' if 'loop' in name else f'{rate.cores:.1f}'} |"
            for name, rate in rates.items()
        ),
    ]
    return "\n".join(lines)


def main() -> int:
    """Entry point of ``python -m benchmarks.feature_pass``."""
    parser = Parser(prog="python -m benchmarks.feature_pass", description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--manifests", default="manifests", help="folder of manifests")
    parser.add_argument("--images", type=positive, default=256, help="number of images")
    parser.add_argument("--batch", type=positive, help="batch size")
    parser.add_argument("--rounds", type=positive, default=5, help="number of rounds")
    parser.add_argument("--photos", type=Path, help="folder of JPEG files (default: bundled ones)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=JPEG_SIZE, help="of the bundled photos, in pixels"
    )
    parser.add_argument(
        "--loops",
        nargs="*",
        choices=("plain", "strong"),
        default=["plain"],
        help="PyTorch loops",
    )
    parser.add_argument(
        "--torch-python", default=sys.executable, help="a Python with torch and timm"
    )
    add_store(parser)
    add_selection(parser)
    parser.set_defaults(command=speed)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
