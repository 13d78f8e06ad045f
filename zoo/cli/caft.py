"""Commands for cached-activation fine-tuning: features, train-head, predict, probe, export-head.

Heavy packages are imported when a command runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.support import (
    client_of,
    output_file,
)
from zoo.util.errors import CacheError, UsageError
from zoo.util.files import write_whole
from zoo.util.names import counted
from zoo.util.terminal import harmless

if TYPE_CHECKING:
    from zoo.caft.cache import FeatureCache
    from zoo.caft.card import Identity
    from zoo.caft.features import Pass
    from zoo.caft.head import Head
    from zoo.caft.workers import Workforce
    from zoo.client.client import Client
    from zoo.inference.extractor import Extractor


def features(options: argparse.Namespace) -> int:
    """Computes the features of a data set once and caches them."""
    from zoo.caft.features import cache_features
    from zoo.caft.progress import pass_progress
    from zoo.caft.skipped import has_any
    from zoo.caft.sources import open_source
    from zoo.caft.task import TASKS, Task

    chosen = {"image": options.image, "label": options.label, "split": options.split}
    has_any(open_source(options.data, **chosen), options.data)  # before an engine is downloaded
    if Path(options.output).is_file():
        raise CacheError(
            f"{options.output} is a file; a feature cache is a folder",
            hint="choose a new or empty folder with -o",
        )
    table = _table_of(options)
    with (
        _workforce(options) as cluster,
        _pass_extractor(options, cluster) as extractor,
        pass_progress(options.data, **chosen) as progress,
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
    _print_changes(state)
    views, classes = card.identity.augmentation.views, TASKS[Task.CLASSIFICATION]
    print(
        f"{options.output}: {counted(card.samples, 'image')}"
        + (f" in {views} views" if views > 1 else "")
        + f", {classes.count(len(card.labels))}, {card.identity.feature_dim:,} features in "
        f"{card.identity.storage}; {card.bad:,} skipped"
        + (f", {state.unlabelled:,} without a label" if state.unlabelled else "")
    )
    for note in state.notes:
        print(harmless(f"  {note}"), file=sys.stderr)
    if state.images:
        print(
            f"{counted(state.images, 'image')} in {state.seconds:.1f} s: "
            f"{state.images_per_second:.1f} images/s; {state.in_engine / state.seconds:.0%} of the "
            "time was spent waiting for the engine"
        )
    if table is not None:
        from zoo.caft.cache import FeatureCache

        _write_table(FeatureCache(options.output), table)
        print(f"{table}: {counted(card.samples * views, 'row')}")
    return 0


def _table_of(options: argparse.Namespace) -> Path | None:
    """Returns the file for ``--format``, beside the cache; None without it.

    Raises:
        MissingPackageError: What writes the format is not installed.
        UsageError: There is something else in its place.
    """
    if options.format is None:
        return None
    from zoo.caft.tables import FORMATS, TableFormat, check_packages

    kind = TableFormat(options.format)
    check_packages(kind)  # before a long pass
    folder = Path(options.output)
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return output_file(str(folder.with_name(folder.name + FORMATS[kind].suffix)))


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
    print(f"already cached: {counted(state.found, 'image')}", file=sys.stderr)
    for words, number in (
        ("relabelled", state.relabelled),
        ("run again, because their content has changed", state.rewritten),
        ("renamed; their features were kept", state.renamed),
        ("removed, because they are no longer in the data set", state.gone),
    ):
        if number:
            print(f"  {words}: {number:,}", file=sys.stderr)
    if state.reordered:
        print("  the order has changed; the cache has the new one", file=sys.stderr)


def train(options: argparse.Namespace) -> int:
    """Trains a head on cached features and evaluates it on held-out images."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.progress import epoch_progress
    from zoo.caft.report import Report, new_figure
    from zoo.caft.report_figure import draw_report
    from zoo.caft.scores import write_scores, write_wrong
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
    if isinstance(report, Report):
        write_scores(report.classes, output.with_suffix(".classes.csv"))
        write_wrong(report.wrong, output.with_suffix(".wrong.csv"))
    if not options.no_plot:
        draw_report(report, picture)
    if cache.identity.dry_run:
        print("DRY RUN: these features come from seeded, not trained weights", file=sys.stderr)
    print("\n".join(report.lines))
    print(
        f"{output}: {settings.kind}, {TASKS[Task(options.task)].count(len(report.labels))}, "
        "trained on "
        f"{counted(report.trained_on, 'image')} in {report.seconds:.3g} s"
        + (f": {counted(len(report.curve), 'epoch')}" if report.curve else "")
    )
    if isinstance(report, Report) and report.wrong:
        print(f"{output.with_suffix('.wrong.csv')}: {counted(len(report.wrong), 'image')} wrong")
    return 0


def probe(options: argparse.Namespace) -> int:
    """Evaluates cached features with a kNN and a linear classifier."""
    from zoo.caft.cache import FeatureCache
    from zoo.caft.probe import probe as run_probe
    from zoo.caft.progress import task_progress

    result = run_probe(
        FeatureCache(options.cache),
        neighbours=options.k,
        test=options.test,
        seed=options.seed,
        knn_images=options.knn_images,
        progress=task_progress,
    )
    for line in result.lines:
        print(line)
    return 0


def export_features(options: argparse.Namespace) -> int:
    """Writes the rows of a feature cache as a table: .parquet, .arrow, .csv, .npz or .tar."""
    from zoo.caft.cache import FeatureCache

    output = output_file(options.output)
    cache = FeatureCache(options.cache)
    _write_table(cache, output)
    print(
        f"{output}: {counted(len(cache), 'row')}, {counted(cache.identity.feature_dim, 'feature')}"
    )
    return 0


def _write_table(cache: FeatureCache, path: Path) -> None:
    """Writes a cache as a table, and shows how far it is."""
    from zoo.caft.progress import amount_progress
    from zoo.caft.tables import write_table

    with amount_progress("row", len(cache)) as step:
        write_table(cache, path, step)


def export_head(options: argparse.Namespace) -> int:
    """Exports backbone and head as one ONNX model, from images to probabilities."""
    from zoo.caft.onnx_export import export_onnx
    from zoo.caft.task import TASKS

    output = output_file(options.output)
    head, client = _head(options), client_of(options)
    with (
        _extractor(options, None, head.card.identity, client) as extractor,
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


def _head(options: argparse.Namespace) -> Head:
    from zoo.caft.head import Head

    return Head.load(Path(options.head))


def _extractor(
    options: argparse.Namespace,
    model: str | None,
    trained: Identity | None = None,
    client: Client | None = None,
) -> Extractor:
    """Loads an engine; by default the target that a head or a cache was made with, if given."""
    from zoo.inference.extractor import load

    target, allow_seeded = options.target, options.allow_seeded
    if trained is not None:
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
