"""Measures what ``--decode fast`` changes: features, and the time of decoding large photos.

Each photo is written as a JPEG file of several sizes, enlarged where it is smaller, and decoded
exactly and at a fraction of its size, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks.feature_pass import jpegs
from zoo.caft.augment import Augmentation
from zoo.caft.decode import PhotoDecoder
from zoo.caft.decode_process import Decoding
from zoo.cli.main import Parser, run_cli
from zoo.cli.support import add_selection, add_store
from zoo.inference.extractor import Extractor, load

_SIZES = ((4000, 3000), (2000, 1500), (1000, 750), (500, 375))


def drift(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints its table."""
    print("| photos | decoding, times as fast | cosine, lowest | median | neighbours kept |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with load(
        options.model,
        store=options.store,
        target=options.target,
        precision=options.precision,
        allow_pending=options.allow_pending,
        allow_seeded=options.allow_seeded,
    ) as extractor:
        for size in _SIZES:
            files = jpegs(None, options.images, size)
            print(_row(extractor, files, size, options.rounds), flush=True)
    return 0


def _row(extractor: Extractor, files: Sequence[bytes], size: tuple[int, int], rounds: int) -> str:
    ways = [
        PhotoDecoder(
            extractor.preprocess,
            Augmentation(count=0, seed=0),
            workers=1,
            processes=False,
            decoding=Decoding(exif="ignore", fast=fast),
        )
        for fast in (False, True)
    ]
    ratios = []
    for _ in range(rounds):
        exact, fast = (_seconds(way, files) for way in ways)
        ratios.append(exact / fast)
    features = [extractor([_pixels(way, file) for file in files]) for way in ways]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in features]
    cosines = (units[0] * units[1]).sum(axis=1)
    same = np.mean([a == b for a, b in zip(*map(_nearest, units), strict=True)])
    width, height = size
    return (
        f"| {len(files)} of {width}x{height} | {statistics.median(ratios):.1f} "
        f"({min(ratios):.1f} to {max(ratios):.1f}) | {cosines.min():.4f} | "
        f"{np.median(cosines):.4f} | {same:.0%} |"
    )


def _nearest(units: np.ndarray) -> list[int]:
    """Returns for each row the one nearest to it."""
    similar = units @ units.T
    np.fill_diagonal(similar, -2)
    return list(similar.argmax(axis=1))


def _pixels(decoder: PhotoDecoder, file: bytes) -> Image.Image:
    with decoder.views(file) as (_, views):
        return Image.fromarray(np.array(next(iter(views))))


def _seconds(decoder: PhotoDecoder, files: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for file in files:
        _pixels(decoder, file)
    return time.perf_counter() - started


def main() -> int:
    """Entry point of ``python -m benchmarks.decode_fast``."""
    parser = Parser(prog="python -m benchmarks.decode_fast", description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=24, help="number of photos, all different")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    add_store(parser)
    add_selection(parser)
    parser.set_defaults(command=drift)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
