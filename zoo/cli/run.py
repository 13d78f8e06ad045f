"""``zoo run``: the features of photos, as a file whose rows have names."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from zoo.cli import caft
from zoo.cli.command import add_arguments
from zoo.cli.support import add_selection, add_store, output_file
from zoo.util.errors import RunError, UsageError

if TYPE_CHECKING:
    from typing import Any

    from zoo.caft.cache import FeatureCache

_ARRAY = ".npy"


def run(options: argparse.Namespace) -> int:
    """Computes the features of photos and saves them, one named row per photo."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.features import cache_features
    from zoo.caft.predictions import PhotoPaths

    output = _output(options)
    photos = PhotoPaths(options.photos)
    photos.check()
    for photo in options.photos:  # before an engine is downloaded
        if not os.path.exists(photo):
            _refuse(photo, "no such file")
    samples = [
        replace(sample, label=None, key=str(number))  # the same photo may be named twice
        for number, sample in enumerate(photos)
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        caft._extractor(options, options.model) as extractor,
        tempfile.TemporaryDirectory(prefix=".zoo-run-", dir=output.parent) as scratch,
    ):
        folder = Path(scratch) / "cache"
        cache_features(samples, extractor, folder, label=False, on_bad=_refuse)
        cache = FeatureCache(folder)
        _write(cache, output)
    print(f"{output}: features {cache.features.shape}, {cache.features.dtype}")
    if output.suffix.lower() == _ARRAY and len(cache) > 1:
        for number, sample in enumerate(samples):
            print(f"  row {number}: {sample.name}")
    return 0


def _output(options: argparse.Namespace) -> Path:
    """Returns the file to write, which does not exist yet.

    Raises:
        UsageError: It exists, or has a suffix that stands for no format.
    """
    from zoo.caft.tables import FORMATS, check_packages, format_of

    output = output_file(options.output or _default_name(options.photos, options.model))
    if output.suffix.lower() != _ARRAY:
        suffixes = [_ARRAY, *(facts.suffix for facts in FORMATS.values())]
        if output.suffix.lower() not in suffixes:
            raise UsageError(
                f"{output}: no format has the suffix '{output.suffix}'",
                hint=f"formats: {', '.join(suffixes)}",
            )
        check_packages(format_of(output))
    if output.exists() and not options.overwrite:
        raise UsageError(
            f"{output} exists", hint="give another file with --output, or add --overwrite"
        )
    return output


def _default_name(photos: Sequence[str], model: str) -> str:
    """Returns the name of the photo for one photo; ``.npz`` has the names of several."""
    if len(photos) == 1 and not os.path.isdir(photos[0]):
        return f"{Path(photos[0]).stem}.{model}{_ARRAY}"
    return f"features.{model}.npz"


def _write(cache: FeatureCache, output: Path) -> None:
    import numpy as np

    from zoo.caft.tables import write_table
    from zoo.util.files import whole

    if output.suffix.lower() != _ARRAY:
        write_table(cache, output)
        return
    with whole(output) as part, part.open("wb") as file:
        np.save(file, cache.features)


def _refuse(photo: str, reason: str) -> NoReturn:
    raise RunError(f"{photo}: {reason}", hint="nothing was written; leave this photo out")


def add_command(commands: Any) -> None:
    """Adds the command to ``zoo``."""
    parser = add_arguments(commands, "run", run)
    add_store(parser)
    parser.add_argument("model", help="model id, as listed by zoo list")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="image file, or a folder of them"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE",
        help="file to save features to: .npy without names, or .npz, .parquet, .arrow, .csv or "
        ".tar with the photos' names (default: PHOTO.MODEL.npy, or features.MODEL.npz for several)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_selection(parser)
