"""How fast the feature pass is beside the bare engine and a plain PyTorch loop, in one run.

``python -m benchmarks.feature_pass --store _repository --model efficientnet_lite0``. The ways take
turns, so that what else the machine does falls on all of them alike.
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
from zoo.cli.main import Parser, add_arguments, run_cli
from zoo.cli.support import add_selection, add_store
from zoo.client.client import default_store
from zoo.client.host import describe_machine
from zoo.inference.extractor import Extractor, load
from zoo.inference.preprocess import batch_of, open_photo
from zoo.runtime.base import Pipelined, pipeline_of

_JPEG_SIZE = (500, 375)
"""What most photos of ImageNet are of, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    """What is timed: each takes nothing and has all images go through the network once."""

    named: dict[str, Callable[[], None]]
    images: int


def measure(ways: Ways, rounds: int) -> dict[str, float]:
    """Times each way in turns; returns images per second, the median of the rounds."""
    for run in ways.named.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in ways.named}
    for _ in range(rounds):
        for name, run in ways.named.items():
            started = time.perf_counter()
            run()
            found[name].append(ways.images / (time.perf_counter() - started))
            time.sleep(0.2)  # thread pools keep spinning for a while after their work
    return {name: statistics.median(rates) for name, rates in found.items()}


def ways_of(
    extractor: Extractor, loop: TorchLoop, photos: list[bytes], folder: Path, batch: int
) -> Ways:
    """Returns the ways through a network for some photos.

    Args:
        extractor: The engine.
        loop: The same network in PyTorch.
        photos: JPEG files.
        folder: For caches.
        batch: Images at once.
    """
    preprocess = extractor.preprocess
    ready = batch_of([open_photo(io.BytesIO(photo)) for photo in photos], preprocess)
    made = iter(range(1 << 30))
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
            cache_features(samples, extractor, folder / str(next(made)), batch=batch)

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
    """Returns JPEG files, over and over.

    Args:
        folder: Of JPEG files; photos of the farm's packages, made to one size, when None.
        count: How many.
    """
    found = (
        _from_packages() if folder is None else [p.read_bytes() for p in sorted(folder.iterdir())]
    )
    return [found[number % len(found)] for number in range(count)]


def _from_packages() -> list[bytes]:
    from builders.photos.bundled import calibration_paths, golden_paths

    made = []
    for path in [*calibration_paths(), *golden_paths()]:
        data = io.BytesIO()
        open_photo(path).resize(_JPEG_SIZE, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        made.append(data.getvalue())
    return made


def speed(options: argparse.Namespace) -> int:
    """Times the feature pass beside the bare engine and a plain PyTorch loop."""
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
    """Returns the rates as Markdown, the first of them being what the others are compared with."""
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
    parser = Parser(prog="feature_speed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    command = add_arguments(commands, "speed", speed)
    command.add_argument("--model", default="efficientnet_lite0")
    command.add_argument("--manifests", default="manifests")
    command.add_argument("--images", type=int, default=256)
    command.add_argument("--batch", type=int)
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--photos", type=Path, help="folder of JPEG files")
    command.add_argument("--torch-python", default=sys.executable, help="has torch and timm")
    add_store(command)
    add_selection(command)
    return run_cli(parser, ["speed", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
