"""Commands of ``zoo-farm`` that measure what is published: speed, accuracy and costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from builders.cli.options import STORE_HELP, chosen_manifests, published
from builders.planning.options import words
from builders.publish.signer import KEYS_HELP, open_desk
from zoo.cli.main import add_arguments
from zoo.util.errors import RepositoryError


def add_commands(commands: Any) -> None:
    """Adds them to a parser's subcommands."""
    against = add_arguments(commands, "compare", compare)
    against.add_argument("--store", default="", help=STORE_HELP)
    against.add_argument("--keys", default="", help=KEYS_HELP)
    against.add_argument("--models", default="", help="ids, globs or families")
    against.add_argument("--torch-speed", default="", help="folder of torch-speed: GPU engines")
    judged = add_arguments(commands, "accuracy", accuracy)
    judged.add_argument("--store", default="", help=STORE_HELP)
    judged.add_argument("--models", default="", help="ids, globs or families")
    judged.add_argument("--labelled", default="", help="folder with a folder of photos per class")
    pytorch = add_arguments(commands, "torch-speed", torch_speed)
    pytorch.add_argument("--models", default="", help="ids, globs or families")
    pytorch.add_argument("--batches", default="1 64 256", help="batch sizes")
    pytorch.add_argument("--eager-only", action="store_true", help="leave torch.compile out")
    pytorch.add_argument("--output", default="torch-speed", help="folder for a JSON per model")
    add_arguments(commands, "costs", costs).add_argument("--store", default="", help=STORE_HELP)


def compare(options: argparse.Namespace) -> int:
    """Puts published engines beside PyTorch; their records then say where they are slower."""
    from builders.measure import comparison

    repository, say = published(options), Console(stderr=True).print
    desk = open_desk(options.store or "_repository", options.keys, say)
    if options.torch_speed:
        print("\n".join(comparison.compare_on_gpu(repository, desk, Path(options.torch_speed))))
        return 0
    manifests = chosen_manifests(options)[0].values()
    print(comparison.compare_on_cpu(repository, desk, manifests, Path(options.manifests), say))
    return 0


def accuracy(options: argparse.Namespace) -> int:
    """Measures what each precision costs on labelled photos; prints a table."""
    from builders.measure import accuracy as measured
    from builders.measure.imagenet_sample import imagenet_sample
    from builders.photos.labelled import read_labelled

    repository, say = published(options), Console(stderr=True).print
    folder = options.labelled
    labelled = read_labelled(Path(folder), say).opened() if folder else imagenet_sample()
    rows: list[measured.Accuracy] = []
    lacking: list[str] = []
    for manifest in chosen_manifests(options)[0].values():
        say(f"{manifest.id} ...")
        rows += measured.measure(repository, manifest, Path(options.manifests), labelled)
        lacking += measured.missing(repository, manifest)
    if not rows:
        raise RepositoryError(
            f"{repository.store.url}: no CPU engine of these models is published here",
            hint="make zoo GPU=cpu publishes them",
        )
    print(measured.to_markdown(rows, labelled.name, lacking))
    return 0


def torch_speed(options: argparse.Namespace) -> int:
    """Times backbones in PyTorch on this machine's GPU, fp16: what engines have to beat."""
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
    """Shows what exports and engines of a repository took: seconds, memory, size."""
    from builders.measure.costs import to_markdown

    print(to_markdown(published(options)))
    return 0
