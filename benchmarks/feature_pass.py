"""Benchmarks the feature pass against the bare engine and a plain PyTorch loop, in one run.

The contestants alternate, so that other load on the machine affects all of them alike.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.torch_loop import TorchLoop
from zoo.caft.features import cache_features
from zoo.caft.sample import Sample
from zoo.cli.main import Parser, run_cli
from zoo.cli.support import add_selection, add_store
from zoo.client.client import default_store
from zoo.client.host import describe_machine
from zoo.inference.extractor import Extractor, load
from zoo.inference.preprocess import batch_of, open_photo
from zoo.runtime.base import Pipelined, pipeline_of

_JPEG_SIZE = (500, 375)
"""The most common size of ImageNet's photos, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The contestants by name: functions that run all images through the network once."""

    named: dict[str, Callable[[], None]]
    images: int


def measure(ways: Ways, rounds: int) -> dict[str, float]:
    """Returns the images per second of each contestant: the median over the rounds."""
    for run in ways.named.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in ways.named}
    for _ in range(rounds):
        for name, run in ways.named.items():
            started = time.perf_counter()
            run()
            rates[name].append(ways.images / (time.perf_counter() - started))
            time.sleep(0.2)  # idle thread pools keep spinning for a while
    return {name: statistics.median(measured) for name, measured in rates.items()}


def ways_of(
    extractor: Extractor, loop: TorchLoop, photos: list[bytes], folder: Path, batch: int
) -> Ways:
    """Returns the contestants.

    Args:
        extractor: The engine.
        loop: The same network in PyTorch.
        photos: JPEG files.
        folder: Folder for caches.
        batch: Batch size.
    """
    preprocess = extractor.preprocess
    ready = batch_of([open_photo(io.BytesIO(photo)) for photo in photos], preprocess)
    numbers = iter(range(1 << 30))
    ahead = isinstance(extractor.session, Pipelined)

    def bare() -> None:
        for start in range(0, len(ready), batch):
            extractor.session.features(ready[start : start + batch])

    def one_ahead() -> None:
        with pipeline_of(extractor.session) as pipeline:
            images = pipeline.host_memory((batch, *ready.shape[1:]))
            images[:] = ready[:batch]
            running = None
            for start in range(0, len(ready), batch):
                before, running = running, pipeline.begin(images[: len(ready) - start])
                if before is not None:
                    before.features()
            if running is not None:
                running.features()

    def pass_over(samples: Any) -> Callable[[], None]:
        def run() -> None:
            cache_features(samples, extractor, folder / str(next(numbers)), batch=batch)

        return run

    return Ways(
        named={
            "the engine alone, images ready": bare,
            **({"the engine alone, one batch ahead": one_ahead} if ahead else {}),
            "feature pass, images ready": pass_over(_Samples(list(ready))),
            "feature pass, JPEG files": pass_over(_Samples(photos)),
            f"{loop.name}, JPEG files": loop.run,
        },
        images=len(photos),
    )


class _Samples:
    def __init__(self, images: list[Any]) -> None:
        self._images = images

    def __iter__(self) -> Iterator[Sample]:
        for number, image in enumerate(self._images):
            yield Sample(name=f"{number}", label=None, read=partial(_same, image))


def _same(image: Any) -> Any:
    return image


def jpegs(folder: Path | None, count: int) -> list[bytes]:
    """Returns JPEG files, repeated up to a count.

    Args:
        folder: Folder of JPEG files; if None, photos from the farm's packages, resized to one size.
        count: Number of files to return.
    """
    files = (
        _from_packages() if folder is None else [p.read_bytes() for p in sorted(folder.iterdir())]
    )
    return [files[number % len(files)] for number in range(count)]


def _from_packages() -> list[bytes]:
    from builders.photos.bundled import calibration_paths, golden_paths

    files = []
    for path in [*calibration_paths(), *golden_paths()]:
        data = io.BytesIO()
        open_photo(path).resize(_JPEG_SIZE, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        files.append(data.getvalue())
    return files


def speed(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints its table."""
    photos = jpegs(options.photos, options.images)
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
    ):
        folder, batch = Path(scratch), options.batch or extractor.batch
        record, files = folder / "record.json", folder / "photos"
        record.write_text(extractor.record.model_dump_json())
        files.mkdir()
        for number, photo in enumerate(photos):
            (files / f"{number:06}.jpg").write_bytes(photo)
        manifest = Path(options.manifests) / f"{options.model}.toml"
        store = options.store or default_store()
        with TorchLoop(options.torch_python, manifest, store, record, files, batch) as loop:
            ways = ways_of(extractor, loop, photos, folder, batch)
            rates = measure(ways, options.rounds)
    print(table(rates, extractor, ways.images, batch, options.rounds))
    return 0


def table(
    rates: dict[str, float], extractor: Extractor, images: int, batch: int, rounds: int
) -> str:
    """Returns the rates as Markdown, relative to the first of them."""
    base = next(iter(rates.values()))
    machine = describe_machine()
    where = machine.gpu_name or machine.cpu
    lines = [
        f"{extractor.model}, {extractor.record.targets[0]}, {images} images at batch {batch}, "
        f"median of {rounds} rounds in turns; {where}, {machine.cores} cores.",
        "",
        "| way | images/s | of the engine alone |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {rate:.1f} | {rate / base:.2f} |" for name, rate in rates.items()),
    ]
    return "\n".join(lines)


def main() -> int:
    """Entry point of ``python -m benchmarks.feature_pass``."""
    parser = Parser(prog="python -m benchmarks.feature_pass", description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--manifests", default="manifests", help="folder of manifests")
    parser.add_argument("--images", type=int, default=256, help="number of images")
    parser.add_argument("--batch", type=int, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--photos", type=Path, help="folder of JPEG files (default: bundled ones)")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="a Python with torch and timm"
    )
    add_store(parser)
    add_selection(parser)
    parser.set_defaults(command=speed)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
