"""Commands that measure engines: ``compare``, ``accuracy``, ``torch-speed``, ``costs``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from builders.cli.options import STORE_HELP, chosen_manifests, published, store_of
from builders.planning.options import words
from builders.publish.signer import KEYS_HELP, open_desk
from zoo.cli.command import add_arguments
from zoo.util.errors import RepositoryError


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser's subcommands."""
    of_compare = add_arguments(commands, "compare", compare)
    of_compare.add_argument("--store", default="", help=STORE_HELP)
    of_compare.add_argument("--keys", default="", help=KEYS_HELP)
    of_compare.add_argument("--models", default="", help="ids, globs or families (default: all)")
    of_compare.add_argument(
        "--torch-speed",
        default="",
        help="output folder of torch-speed: compare GPU engines (default: those of the CPU)",
    )
    of_accuracy = add_arguments(commands, "accuracy", accuracy)
    of_accuracy.add_argument("--store", default="", help=STORE_HELP)
    of_accuracy.add_argument("--models", default="", help="ids, globs or families (default: all)")
    of_accuracy.add_argument(
        "--labelled",
        default="",
        help="folder with one folder of photos per class (default: photos of the farm's packages)",
    )
    of_torch_speed = add_arguments(commands, "torch-speed", torch_speed)
    of_torch_speed.add_argument(
        "--models", default="", help="ids, globs or families (default: all)"
    )
    of_torch_speed.add_argument(
        "--batches", default="1 64 256", help="batch sizes (default: 1 64 256)"
    )
    of_torch_speed.add_argument("--eager-only", action="store_true", help="skip torch.compile")
    of_torch_speed.add_argument(
        "--output",
        default="torch-speed",
        help="output folder, one JSON file per model (default: torch-speed)",
    )
    add_arguments(commands, "costs", costs).add_argument("--store", default="", help=STORE_HELP)


def compare(options: argparse.Namespace) -> int:
    """Compares the speed of published engines with PyTorch and records where they are slower."""
    from builders.measure import comparison

    repository, say = published(options), Console(stderr=True).print
    desk = open_desk(store_of(options), options.keys, say)
    repository.sign = desk.sign
    if options.torch_speed:
        print("\n".join(comparison.compare_on_gpu(repository, desk, Path(options.torch_speed))))
        return 0
    manifests = chosen_manifests(options)[0].values()
    print(comparison.compare_on_cpu(repository, desk, manifests, Path(options.manifests), say))
    return 0


def accuracy(options: argparse.Namespace) -> int:
    """Measures the accuracy of each precision on labelled photos; prints a table."""
    from builders.measure import accuracy as measurement
    from builders.measure.imagenet_sample import imagenet_sample
    from builders.photos.labelled import read_labelled

    repository, say = published(options), Console(stderr=True).print
    folder = options.labelled
    labelled = read_labelled(Path(folder), say).opened() if folder else imagenet_sample()
    rows: list[measurement.Accuracy] = []
    missing: list[str] = []
    for manifest in chosen_manifests(options)[0].values():
        say(f"{manifest.id} ...")
        rows += measurement.measure(repository, manifest, Path(options.manifests), labelled)
        missing += measurement.missing(repository, manifest)
    if not rows:
        raise RepositoryError(
            f"{repository.store.url}: no CPU engine of these models is published",
            hint="make zoo GPU=cpu publishes them",
        )
    print(measurement.to_markdown(rows, labelled.name, missing))
    return 0


def torch_speed(options: argparse.Namespace) -> int:
    """Times backbones in PyTorch, fp16, on this machine's GPU: the baseline of compare."""
    from builders.measure.pytorch import measure

    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    batches = [int(word) for word in words(options.batches)]
    for manifest in chosen_manifests(options)[0].values():
        speed = measure(manifest, batches, with_compile=not options.eager_only)
        (output / f"{manifest.id}.json").write_text(speed.to_json())
        rows = ", ".join(f"{row.best_ms:.3g} ms at batch {row.batch}" for row in speed.batches)
        print(f"{manifest.id}: {rows}", flush=True)
    return 0


def costs(options: argparse.Namespace) -> int:
    """Shows the seconds, memory and size that a repository's exports and engines took."""
    from builders.measure.costs import to_markdown

    print(to_markdown(published(options)))
    return 0
