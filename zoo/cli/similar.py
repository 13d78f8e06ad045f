"""``zoo similar``, ``zoo duplicates`` and ``zoo map``: what the features of a cache show."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli import caft
from zoo.cli.command import add_arguments
from zoo.cli.support import add_selection, add_store, output_file, positive
from zoo.util.errors import CacheError, DatasetError, RunError, UsageError
from zoo.util.names import counted
from zoo.util.terminal import harmless

if TYPE_CHECKING:
    from zoo.caft.cache import FeatureCache
    from zoo.caft.neighbours import Similar
    from zoo.inference.extractor import Extractor

_SHOWN = 10  # groups, and photos of a group, that are printed


def similar(options: argparse.Namespace) -> int:
    """Finds the photos of a feature cache that are most similar to given photos."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.neighbours import most_similar
    from zoo.caft.predictions import NO_PHOTO, PhotoPaths, photo_features

    cache, photos = FeatureCache(options.cache), PhotoPaths(options.photos)
    photos.check()
    cache.check()
    compared, skipped = 0, Counter[bool]()  # whether a photo was named itself, or found in a folder

    def skip(photo: str, reason: str, named: bool) -> None:
        skipped[named] += 1
        print(harmless(f"skipped {photo}: {reason}"), file=sys.stderr)

    with caft._extractor(options, cache.identity.model, cache.identity) as extractor:
        _check_engine(cache, extractor, options)
        for samples, features in photo_features(extractor, cache.identity, photos, skip):
            compared += len(samples)
            found = most_similar(cache, features, options.k)
            for sample, rows in zip(samples, found, strict=True):
                _print(sample.name, rows, as_json=options.json)
    if skipped[True]:
        raise RunError(f"{counted(skipped.total(), 'photo')} could not be used")
    if not compared:
        raise DatasetError("none of the photos could be used", hint=NO_PHOTO)
    if skipped[False]:
        print(f"{counted(skipped[False], 'photo')} skipped", file=sys.stderr)
    return 0


def _check_engine(cache: FeatureCache, extractor: Extractor, options: argparse.Namespace) -> None:
    """Checks that new features can be compared with those of a cache.

    Raises:
        CacheError: They are of another engine, which was not accepted.
    """
    own = cache.identity
    if own.preprocess != extractor.preprocess:
        raise CacheError(
            f"{cache.folder} was made with other preprocessing than this engine's",
            hint="extract the features again into another folder",
        )
    if own.engine != extractor.engine and not options.allow_other_engine:
        raise CacheError(
            f"{cache.folder} was made with engine {own.engine[:12]} ({own.target}), this is "
            f"{extractor.engine[:12]} ({extractor.record.targets[0]})",
            hint=f"use --target {own.target}, or --allow-other-engine to accept this engine",
        )


def _print(photo: str, rows: list[Similar], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"photo": photo, "similar": [_of(row) for row in rows]}))
        return
    print(f"{photo}:")
    for row in rows:
        print(f"  {row.similarity:.3f}  {row.name}" + (f"  ({row.label})" if row.label else ""))


def _of(row: Similar) -> dict[str, str | float | None]:
    return {"photo": row.name, "label": row.label, "similarity": round(row.similarity, 6)}


def duplicates(options: argparse.Namespace) -> int:
    """Finds photos of a feature cache that are nearly the same, in groups."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.neighbours import near_duplicates
    from zoo.caft.progress import amount_progress

    output = _csv_file(options.output) if options.output else None
    cache = FeatureCache(options.cache)
    cache.check()
    with amount_progress("photo", len(cache.labels)) as step:
        groups = near_duplicates(cache, options.at_least, step)
    if output is not None:
        _write_groups(groups, output)
    if options.json:
        for group in groups:
            print(json.dumps([_of(row) for row in group]))
        return 0
    for group in groups[:_SHOWN]:
        print(f"{counted(len(group), 'photo')}:")
        for row in group[:_SHOWN]:
            print(f"  {row.similarity:.3f}  {row.name}" + (f"  ({row.label})" if row.label else ""))
        if len(group) > _SHOWN:
            print(f"  … and {len(group) - _SHOWN:,} more")
    if len(groups) > _SHOWN:
        place = output or "-o FILE.csv"
        print(f"… and {counted(len(groups) - _SHOWN, 'more group')}; {place} lists all")
    photos = sum(map(len, groups))
    mixed = sum(len({row.label for row in group if row.label}) > 1 for group in groups)
    print(
        f"{options.cache}: {counted(photos, 'photo')} of {len(cache.labels):,} in "
        f"{counted(len(groups), 'group')} of near-duplicates"
        + (f"; {counted(mixed, 'group')} with different labels" if mixed else "")
    )
    return 0


def _csv_file(name: str) -> Path:
    path = output_file(name)
    if path.suffix.lower() != ".csv":
        raise UsageError(
            f"{path}: groups are written as .csv", hint=f"for example -o {path.with_suffix('.csv')}"
        )
    return path


def _write_groups(groups: list[list[Similar]], output: Path) -> None:
    from zoo.caft.scores import new_csv

    with new_csv(output) as write:
        write(["group", "photo", "label", "similarity_to_first"])
        for number, group in enumerate(groups, 1):
            for row in group:
                write([number, row.name, row.label or "", f"{row.similarity:.6f}"])


def draw(options: argparse.Namespace) -> int:
    """Draws a map of a feature cache, similar photos near each other, as .png or .html."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.map import Method, draw_map, make_map, write_map
    from zoo.caft.progress import task_progress
    from zoo.caft.report import new_figure

    writers = {".png": draw_map, ".html": write_map}
    outputs = [output_file(name) for name in options.output]
    for output in outputs:
        if output.suffix.lower() not in writers:
            raise UsageError(
                f"{output}: maps are written as {' or '.join(writers)}",
                hint=f"for example -o {output.with_suffix('.html')}",
            )
        if output.suffix.lower() == ".png":
            new_figure(1, 1)  # report a missing package before the work
    cache = FeatureCache(options.cache)
    made = make_map(
        cache,
        Method(options.method),
        most=options.most,
        seed=options.seed,
        progress=task_progress,
    )
    for output in outputs:
        writers[output.suffix.lower()](made, output)
        print(f"{os.fspath(output)}: {made.title}")
    return 0


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0, up to 1")
    return value


def _photos(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 3")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def add_commands(commands: Any) -> None:
    """Adds the commands to ``zoo``."""
    parser = add_arguments(commands, "similar", similar)
    _add_cache(parser)
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="image file, or a folder of them"
    )
    parser.add_argument(
        "-k", type=positive, default=10, metavar="N", help="photos to list (default: 10)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--allow-other-engine",
        action="store_true",
        help="accept an engine of the cache's model other than the one it was made with",
    )
    add_store(parser)
    add_selection(parser)
    parser = add_arguments(commands, "duplicates", duplicates)
    _add_cache(parser)
    parser.add_argument(
        "--at-least", type=_cosine, default=0.99, metavar="COSINE",
        help="lowest cosine between the features of near-duplicates (default: 0.99)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FILE",
        help="write all groups to this .csv file (default: print the largest)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON array per group")
    parser = add_arguments(commands, "map", draw)
    _add_cache(parser)
    parser.add_argument(
        "-o", "--output", required=True, action="append", metavar="FILE",
        help="the .png or .html file; repeat it for both",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=("tsne", "pca"), default="tsne",
        help="tsne shows clusters; pca is faster, for many photos; both start from principal "
        "components, of a sample if there are many photos (default: tsne)",
    )  # fmt: skip
    parser.add_argument(
        "--photos", dest="most", type=_photos, default=5000, metavar="N",
        help="maximum number of photos to draw, chosen at random (default: 5000)",
    )  # fmt: skip
    parser.add_argument("--seed", type=_seed, default=0, help="seed of the sample (default: 0)")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
