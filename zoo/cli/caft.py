"""Commands for cached-activation fine-tuning: features, train-head, predict, probe, export-head.

Heavy packages are imported when a command runs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.support import (
    add_arguments,
    add_selection,
    add_store,
    client_of,
    output_file,
)
from zoo.cluster import CERTS
from zoo.util.errors import CacheError, DatasetError, RunError, UsageError
from zoo.util.files import write_whole

if TYPE_CHECKING:
    from zoo.caft.features import Pass
    from zoo.caft.head import Head
    from zoo.caft.spread import Devices
    from zoo.caft.workers import Workforce
    from zoo.client.client import Client
    from zoo.inference.extractor import Extractor
    from zoo.inference.preprocess import Exif


def features(options: argparse.Namespace) -> int:
    """Computes the features of a data set once and caches them."""
    from zoo.caft.features import cache_features
    from zoo.caft.progress import pass_progress
    from zoo.caft.sources import open_source

    chosen = {"image": options.image, "label": options.label, "split": options.split}
    open_source(options.data, **chosen)  # report problems before downloading an engine
    if Path(options.output).is_file():
        raise CacheError(f"{options.output} is a file; a feature cache is a folder")
    with (
        _workforce(options) as cluster,
        _pass_extractor(options, cluster) as extractor,
        pass_progress() as progress,
    ):
        if cluster is not None:
            cluster.say = progress.say
        card, state = cache_features(
            options.data,
            extractor,
            options.output,
            augment=options.augment,
            seed=options.seed,
            storage=options.storage,
            batch=options.batch,
            workers=options.workers,
            decode=options.decode,
            devices=options.devices,
            cluster=cluster,
            moved=options.moved,
            exif=options.exif,
            **chosen,
            on_bad=lambda name, why: progress.say(f"skipped {name}: {why}"),
            on_progress=progress.show,
        )
    if card.samples == 0:
        raise DatasetError(f"{options.data}: no usable images")
    _print_changes(state)
    views = card.identity.augmentation.views
    print(
        f"{options.output}: {card.samples:,} images"
        + (f" in {views} views" if views > 1 else "")
        + f", {len(card.labels)} classes, {card.identity.feature_dim} features in "
        f"{card.identity.storage}; {card.bad:,} skipped"
        + (f", {state.unlabelled:,} without a label" if state.unlabelled else "")
    )
    for note in state.notes:
        print(f"  {note}", file=sys.stderr)
    if state.images:
        print(
            f"{state.images:,} images in {state.seconds:.1f} s: {state.images_per_second:.1f} "
            f"images/s; {state.in_engine / state.seconds:.0%} of the time was spent waiting for "
            "the engine"
        )
    return 0


@contextmanager
def _workforce(options: argparse.Namespace) -> Iterator[Workforce | None]:
    """Connects to the cluster that the options name; None if there is none."""
    if not options.scheduler:
        if options.certs:
            raise UsageError("--certs needs a cluster: add --scheduler tls://host:8786")
        yield None
        return
    if options.devices is not None:
        raise UsageError(
            "--devices selects GPUs of this machine, so it can't be combined with --scheduler"
        )
    from zoo.caft.workers import open_workforce
    from zoo.cluster.tls import certs_folder
    from zoo.inference.extractor import say

    certs = certs_folder(options.certs)
    with open_workforce(options.scheduler, certs, say=say) as workforce:
        yield workforce


def _pass_extractor(options: argparse.Namespace, cluster: Workforce | None) -> Extractor:
    """Loads the engine of a pass, or chooses the one that the workers of a cluster load."""
    if cluster is None:
        return _extractor(options, options.model)
    return cluster.choose(
        options.model,
        client_of(options),
        anonymous=options.anonymous,
        target=options.target,
        precision=options.precision,
        allow_pending=options.allow_pending,
        allow_seeded=options.allow_seeded,
    )


def _print_changes(state: Pass) -> None:
    """Prints how the data set differs from what the cache had."""
    if not state.before:
        return
    print(f"{state.found:,} images were already cached", file=sys.stderr)
    for words, count in (
        ("relabelled", state.relabelled),
        ("run again, because their content has changed", state.rewritten),
        ("renamed; their features were kept", state.renamed),
        ("removed, because they are no longer in the data set", state.gone),
    ):
        if count:
            print(f"  {words}: {count:,}", file=sys.stderr)
    if state.reordered:
        print("  the order has changed; the cache has the new one", file=sys.stderr)


def train(options: argparse.Namespace) -> int:
    """Trains a head on cached features and evaluates it on held-out images."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.progress import epoch_progress
    from zoo.caft.report import new_figure
    from zoo.caft.report_figure import draw_report
    from zoo.caft.settings import Settings
    from zoo.caft.task import TASKS, Task
    from zoo.caft.train import train_head

    output = output_file(options.output)
    report_file, picture = output.with_suffix(".json"), output.with_suffix(".png")
    if output in (report_file, picture):
        raise UsageError(
            f"{output}: the head would be overwritten by its own report",
            hint=f"use another name, such as {output.with_suffix('.safetensors')}",
        )
    names = Settings.__dataclass_fields__
    settings = Settings(**{name: getattr(options, name) for name in names})
    if not options.no_plot:
        new_figure(1, 1)  # report a missing package before training
    cache = FeatureCache(options.cache)
    with epoch_progress(settings.epochs) as show:
        head, report = train_head(
            cache, settings, task=options.task, labels=options.labels, on_epoch=show
        )
    head.save(output)
    write_whole(report_file, report.to_json())
    if not options.no_plot:
        draw_report(report, picture)
    if cache.identity.dry_run:
        print("DRY RUN: these features come from seeded, not trained weights", file=sys.stderr)
    print("\n".join(report.lines))
    print(
        f"{output}: {settings.kind}, {TASKS[Task(options.task)].count(len(report.labels))}, "
        "trained on "
        f"{report.trained_on:,} images in {report.seconds:.3g} s"
        + (f": {len(report.curve)} epochs" if report.curve else "")
    )
    return 0


def predict(options: argparse.Namespace) -> int:
    """Predicts classes, numbers or labels of photos with a trained head."""
    head = _head(options)
    failed: list[str] = []
    with _extractor(options, options.model, head) as extractor:
        head.check(extractor, allow_other_engine=options.allow_other_engine)
        for photos in _batched(options.photos, extractor.batch):
            images = _opened(photos, head.card.identity.exif, failed)
            if images:
                rows = head.outputs(extractor([image for _, image in images]))
                for (photo, _), row in zip(images, rows, strict=True):
                    print(_answer(photo, row, head, options))
    if failed:
        raise RunError(f"{len(failed):,} of {len(options.photos):,} photos could not be used")
    return 0


def _opened(photos: list[str], exif: Exif, failed: list[str]) -> list[tuple[str, Any]]:
    """Returns the photos that can be read; says why of the others, and adds them to ``failed``."""
    from zoo.caft.decode_process import reason_of
    from zoo.caft.stamps import FileRead
    from zoo.inference.preprocess import open_photo

    images = []
    for photo in photos:
        try:
            images.append((photo, open_photo(io.BytesIO(FileRead(Path(photo))()), exif)))
        except Exception as error:  # a damaged file can make Pillow raise anything
            failed.append(photo)
            reason = "it is a folder" if os.path.isdir(photo) else reason_of(error)
            print(f"skipped {photo}: {reason}", file=sys.stderr)
    return images


def _answer(photo: str, row: Any, head: Head, options: argparse.Namespace) -> str:
    """Returns the line of a photo: its classes, numbers or labels."""
    from zoo.caft.task import Task

    if head.card.task is Task.REGRESSION:
        numbers = list(zip(head.card.labels, map(float, row), strict=True))
        if options.json:
            return json.dumps({"photo": photo, "values": dict(numbers)}, ensure_ascii=False)
        return f"{photo}: " + ", ".join(f"{name} {number:.6g}" for name, number in numbers)
    best = row.argsort()[::-1][: options.top]
    named = [(head.card.labels[number], float(row[number])) for number in best]
    if head.card.task is Task.CLASSIFICATION:
        if options.json:
            return json.dumps({"photo": photo, "classes": dict(named)}, ensure_ascii=False)
        return f"{photo}: " + ", ".join(f"{label} {part:.1%}" for label, part in named)
    on = [(head.card.labels[n], float(row[n])) for n in row.argsort()[::-1] if row[n] >= 0.5]
    if options.json:
        answer = {
            "photo": photo,
            "labels": [label for label, _ in on],
            "probabilities": dict(named),
        }
        return json.dumps(answer, ensure_ascii=False)
    if not on:
        return f"{photo}: no label; the most likely is {named[0][0]} {named[0][1]:.1%}"
    return f"{photo}: " + ", ".join(f"{label} {part:.1%}" for label, part in on)


def _batched(photos: list[str], size: int) -> Iterator[list[str]]:
    """Yields photos some at a time, in order."""
    for start in range(0, len(photos), size):
        yield photos[start : start + size]


def probe(options: argparse.Namespace) -> int:
    """Evaluates cached features with a kNN and a linear classifier."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.probe import probe as run_probe

    cache = FeatureCache(options.cache)
    result = run_probe(cache, neighbours=options.k, test=options.test, seed=options.seed)
    for line in result.lines:
        print(line)
    return 0


def export_features(options: argparse.Namespace) -> int:
    """Writes the rows of a feature cache as a table: .parquet, .arrow, .csv or .npz."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.tables import write_table

    output = output_file(options.output)
    cache = FeatureCache(options.cache)
    write_table(cache, output)
    print(f"{output}: {len(cache):,} rows, {cache.identity.feature_dim} features")
    return 0


def export_head(options: argparse.Namespace) -> int:
    """Exports backbone and head as one ONNX model, from images to probabilities."""
    from zoo.caft.onnx_export import export_onnx
    from zoo.caft.task import TASKS

    output = output_file(options.output)
    head, client = _head(options), client_of(options)
    with (
        _extractor(options, None, head, client) as extractor,
        tempfile.TemporaryDirectory() as scratch,
    ):
        head.check(extractor, allow_other_engine=options.allow_other_engine)
        backbone = client.onnx_of(extractor.record, Path(scratch))
        difference = export_onnx(head, extractor, backbone, output)
    print(
        f"{output}: images to {TASKS[head.card.task].count(len(head.card.labels))}, "
        f"{'for ONNX Runtime' if backbone is None else 'for any runtime'}; differs by at most "
        f"{difference:.1g} from running backbone and head separately"
    )
    return 0


def add_commands(commands: Any) -> None:
    """Adds the commands to ``zoo``."""
    _add_features(commands)
    _add_train(commands)
    parser = add_arguments(commands, "predict", predict)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image file")
    parser.add_argument("--model", help="model id (default: the head's)")
    parser.add_argument(
        "--top", type=_positive, default=3, metavar="N", help="classes to print (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    _add_head(parser)
    parser = add_arguments(commands, "probe", probe)
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
    parser.add_argument(
        "-k", type=_positive, default=20, help="neighbours of the kNN (default: 20)"
    )
    parser.add_argument(
        "--test", type=float, default=0.2, help="fraction of test images (default: 0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    parser = add_arguments(commands, "export-features", export_features)
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE",
        help="the table; its suffix is the format: .parquet, .arrow, .csv or .npz",
    )  # fmt: skip
    parser = add_arguments(commands, "export-head", export_head)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .onnx file")
    _add_head(parser)


def _add_features(commands: Any) -> None:
    parser = add_arguments(commands, "features", features)
    parser.add_argument(
        "data",
        metavar="DATASET",
        help="a folder with one subfolder per class, a list file (path,label), a webdataset .tar, "
        "or hf:NAME[:SPLIT]",
    )
    parser.add_argument("--model", required=True, help="model id, as listed by zoo list")
    parser.add_argument(
        "-o", "--output", required=True, metavar="CACHE", help="folder of the feature cache"
    )
    parser.add_argument(
        "--augment",
        type=_count,
        default=0,
        metavar="N",
        help="number of randomly augmented views in addition to the plain one (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the views (default: 0)")
    parser.add_argument(
        "--storage",
        choices=("fp32", "fp16"),
        default="fp32",
        help="type of the stored features (default: fp32)",
    )
    parser.add_argument("--batch", type=_positive, help="batch size (default: the engine's)")
    parser.add_argument(
        "--workers", type=_positive, help="decoding threads (default: one per core)"
    )
    parser.add_argument(
        "--decode",
        choices=("auto", "pillow", "gpu", "fast"),
        default="auto",
        help="how photos are decoded: auto uses the GPU for JPEG files if possible, else Pillow; "
        "fast decodes large JPEG files at a half to an eighth of their size, which changes the "
        "features (default: auto)",
    )
    parser.add_argument(
        "--devices", type=_devices, metavar="N,N",
        help="GPUs to run on, numbered as by nvidia-smi, or all; each gets its own process "
        "(default: the first, in this process)",
    )  # fmt: skip
    parser.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="run on the workers of a cluster: the address of its scheduler, tls://host:8786",
    )  # fmt: skip
    parser.add_argument(
        "--certs", default="", metavar="DIR",
        help=f"folder of the cluster's certificates (default: ${CERTS})",
    )  # fmt: skip
    parser.add_argument(
        "--image-column", "--image-field", dest="image", metavar="NAME",
        help="the column or field of the image, if a Hugging Face data set or a tar has several",
    )  # fmt: skip
    parser.add_argument(
        "--label-column", "--label-field", dest="label", metavar="NAME",
        help="the column of the label, or its field in a tar, such as cls, txt or json.species",
    )  # fmt: skip
    parser.add_argument(
        "--no-labels", dest="label", action="store_const", const=False,
        help="ignore labels, for example because they are floats or lists",
    )  # fmt: skip
    parser.add_argument(
        "--split", help="the split to read of a folder with train/ and val/, or of hf:NAME"
    )
    parser.add_argument(
        "--exif", choices=("ignore", "apply"), default="ignore",
        help="turn photos by their EXIF orientation; heads follow the setting of their cache",
    )  # fmt: skip
    parser.add_argument(
        "--moved",
        action="store_true",
        help="the data set of the cache has moved to DATASET",
    )
    add_store(parser)
    add_selection(parser)


def _add_train(commands: Any) -> None:
    parser = add_arguments(commands, "train-head", train)
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
    parser.add_argument(
        "-o",
        "--output",
        default="head.safetensors",
        metavar="FILE",
        help="file to save the head to (default: head.safetensors)",
    )
    parser.add_argument(
        "--head",
        dest="kind",
        choices=("linear", "mlp"),
        default="linear",
        help="kind of head (default: linear)",
    )
    parser.add_argument(
        "--task",
        choices=("classification", "regression", "multi-label"),
        default="classification",
        help="what the head predicts (default: classification)",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a CSV file of labels, by sample name (default: the cache's labels)",
    )
    parser.add_argument(
        "--solver",
        choices=("adamw", "lbfgs", "sklearn"),
        default="adamw",
        help="optimiser (default: adamw)",
    )
    for name, kind, default, text in _TRAINING_OPTIONS:
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--no-plot", action="store_true", help="don't draw training curves")


def _add_head(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--head", required=True, metavar="FILE", help="head trained by zoo train-head"
    )
    parser.add_argument(
        "--allow-other-engine",
        action="store_true",
        help="accept an engine of the head's model other than the one it was trained with",
    )
    add_store(parser)
    add_selection(parser)


def _head(options: argparse.Namespace) -> Head:
    from zoo.caft.head import Head

    return Head.load(Path(options.head))


def _extractor(
    options: argparse.Namespace,
    model: str | None,
    head: Head | None = None,
    client: Client | None = None,
) -> Extractor:
    """Loads an engine; for a head, by default one for the target that it was trained with."""
    from zoo.inference.extractor import load

    target, allow_seeded = options.target, options.allow_seeded
    if head is not None:
        trained = head.card.identity
        any_target = (
            options.precision or options.allow_other_engine or model not in (None, trained.model)
        )
        model = model or trained.model
        target = target or (None if any_target else trained.target)
        allow_seeded = allow_seeded or trained.dry_run  # was allowed when the head was trained
    assert model is not None
    return load(
        model,
        client=client or client_of(options),
        target=target,
        precision=options.precision,
        allow_pending=options.allow_pending,
        allow_seeded=allow_seeded,
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _devices(text: str) -> Devices:
    if text == "all":
        return "all"
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text} is neither all nor numbers such as 0,1")
    return tuple(int(number) for number in numbers)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 1000")
    return int(text)


_TRAINING_OPTIONS: tuple[tuple[str, Callable[[str], int | float], int | float, str], ...] = (
    ("--epochs", _positive, 100, "maximum number of epochs"),
    ("--patience", _positive, 10, "epochs without improvement before training stops"),
    ("--batch", _positive, 1024, "batch size"),
    ("--learning-rate", float, 1e-3, "learning rate"),
    ("--weight-decay", float, 1e-2, "weight decay"),
    ("--hidden", _positive, 512, "width of the mlp's hidden layer"),
    ("--dropout", float, 0.2, "dropout of the mlp"),
    ("--val", float, 0.1, "fraction of validation images, which decide when training stops"),
    ("--test", float, 0.2, "fraction of test images"),
    ("--seed", int, 0, "seed of the split, initial weights and order"),
)
