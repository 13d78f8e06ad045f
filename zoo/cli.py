"""``zoo``: list, show, pull and run what a repository has."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from zoo import __version__
from zoo.client import Client, Pulled, connect, default_store
from zoo.errors import UsageError, ZooError
from zoo.index import EngineEntry
from zoo.machine import this_machine
from zoo.stores import open_store
from zoo.target import PRECISIONS
from zoo.verdict import kept, verdicts

Command = Callable[[argparse.Namespace], int]


def list_models(options: argparse.Namespace) -> int:
    """Lists the models of a repository."""
    index = _client(options).index()
    if index.kind == "dry-run":
        print("DRY RUN: these engines hold seeded weights, not trained ones", file=sys.stderr)
    names = max([len(row.model) for row in index.models], default=0) + 2
    families = max([len(row.family) for row in index.models], default=0) + 2
    print(f"{'model':<{names}}{'family':<{families}}{'features':>8}  {'pixels':>6}  engines")
    for row in index.models:
        engines = ", ".join(
            label if status == "verified" else f"{label} ({status})"
            for label, status in sorted(row.targets.items())
        )
        width, size = row.feature_dim, row.input_size
        print(f"{row.model:<{names}}{row.family:<{families}}{width:>8}  {size:>6}  {engines}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Shows a model and its engines."""
    model = _client(options).model(options.model)
    preprocess = model.preprocess
    print(f"{model.catalog.title} ({model.model})")
    print(f"  {model.catalog.summary}")
    for line in model.catalog.characteristics:
        print(f"  - {line}")
    print(f"  use: {model.catalog.use_case}")
    print(f"  timm: {model.timm_name}; weights: {model.weights}; licence: {model.licence}")
    print(f"  features: {model.feature_dim} ({model.cut})")
    print(
        f"  input: {preprocess.input_size} px ({preprocess.size_of} size), "
        f"{preprocess.interpolation}, crop {preprocess.crop}, "
        f"mean {preprocess.mean}, std {preprocess.std}"
    )
    for place, words in verdicts(model).items():
        text = "; ".join(f"{precision}: {word}" for precision, word in words.items())
        print(f"  on {place}, {text}")
    for precision, own in model.own_floors.items():
        print(f"  {precision} may be worse than the zoo's floors in {', '.join(own.looser)}:")
        print(f"    {own.reason}")
    for engine in model.engines:
        _show_engine(engine)
    return 0


def _show_engine(engine: EngineEntry) -> None:
    batch, toolchain = engine.batch, engine.toolchain
    print(f"  {', '.join(engine.targets)}: {engine.status}" + (" DRY RUN" * engine.dry_run))
    if engine.reason:
        print(f"    {engine.reason}")
    print(
        f"    {toolchain.kind} {toolchain.version}, batch {batch.min} to {batch.max} "
        f"(best {batch.opt}), {engine.engine.size / 2**20:.1f} MiB, precision "
        f"{engine.precision_status}"
    )
    if text := kept(engine):
        print(f"    {text}")
    print(f"    sha256 {engine.engine.sha256}")
    for verified in engine.verification.batches if engine.verification else ():
        print(
            f"    batch {verified.batch}: cosine {verified.worst_cosine:.6f} at worst, "
            f"relative error {verified.worst_relative_error:.2g}"
        )
    for timed in engine.benchmark.batches if engine.benchmark else ():
        print(
            f"    batch {timed.batch}: {timed.latency_ms:.2f} ms, "
            f"{timed.images_per_second:.1f} images/s"
        )
    if engine.comparison and (slower := engine.comparison.slower_at):
        print(f"    slower than PyTorch at batch {', '.join(map(str, slower))}")


def pull(options: argparse.Namespace) -> int:
    """Fetches the engine that fits this machine and checks it."""
    output = _output(options.output) if options.output else None
    pulled = _pull(options)
    if output is not None:
        with _whole(output) as partial:
            shutil.copyfile(pulled.engine, partial)
    print(output or pulled.engine)
    return 0


def run(options: argparse.Namespace) -> int:
    """Runs photos through an engine and stores their features."""
    import numpy as np

    from zoo.preprocess import batch_of, open_photo

    output = _output(options.output or f"{Path(options.photos[0]).stem}.{options.model}.npy")
    images = [open_photo(Path(photo)) for photo in options.photos]
    pulled = _pull(options)
    with pulled.open() as session:
        features = session.features(batch_of(images, pulled.record.inputs.preprocess))
    with _whole(output) as partial, partial.open("wb") as file:
        np.save(file, features)
    print(f"{output}: features {features.shape}, {features.dtype}")
    return 0


def mirror(options: argparse.Namespace) -> int:
    """Copies the repository, or a part of it, verified; a run that was interrupted goes on."""
    from zoo.mirror import Filter
    from zoo.mirror import mirror as copy

    wanted = Filter(
        models=options.models or None,
        archs=options.gpu or None,
        precisions=[options.precision] if options.precision else None,
    )
    client, destination = _client(options), open_store(options.destination)
    done = copy(client, destination, wanted, say=print)
    print(
        f"{destination.url}: {done.engines} engines, {done.copied} objects copied, "
        f"{done.bytes / 2**20:.1f} MiB; it is trusted by the root that "
        f"{client.repository.store.url} is"
    )
    return 0


def main() -> int:
    """Entry point of ``zoo``."""
    return run_cli(_parser(), sys.argv[1:])


class Parser(argparse.ArgumentParser):
    """Raises :class:`~zoo.errors.UsageError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse complains of."""
        raise UsageError(f"{self.prog}: {message}", hint=f"{self.prog} --help lists what there is")


def add_arguments(commands: Any, name: str, command: Command) -> argparse.ArgumentParser:
    """Adds a subcommand whose help is its function's docstring."""
    text = (command.__doc__ or "").partition("\n")[0]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    return parser


def run_cli(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Runs a command line: the one place that catches this project's errors.

    Returns:
        The exit status: 0, or the error's.
    """
    try:
        options = parser.parse_args(arguments)
        command: Command = options.command
        return command(options)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            return 0
        print(f"error: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what is published is whole, and the next run goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="zoo", description="Prebuilt, proven engines of frozen backbones.")
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    parser.add_argument(
        "--trust",
        metavar="ROOT",
        help="trust the repository from now on: its root.json, or the SHA-256 of its first root",
    )
    parser.add_argument("--allow-stale", action="store_true", help="take an index that is expired")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    parsers = {
        name: add_arguments(commands, name, command)
        for name, command in (
            ("list", list_models),
            ("show", show),
            ("pull", pull),
            ("run", run),
            ("mirror", mirror),
        )
    }
    for name, command in parsers.items():
        command.add_argument(
            "--store",
            default=default_store(),
            help="the repository (default $ZOO_STORE, else ./_repository)",
        )
        if name not in ("list", "mirror"):
            command.add_argument("model", help="a model's id, as zoo list shows it")
    parsers["run"].add_argument("photos", nargs="+", metavar="PHOTO")
    parsers["mirror"].add_argument("destination", help="where the copy goes")
    parsers["mirror"].add_argument("--models", nargs="+", metavar="MODEL", help="only these")
    parsers["mirror"].add_argument("--gpu", nargs="+", metavar="SM", help="only for these")
    parsers["mirror"].add_argument("--precision", choices=PRECISIONS, help="only this")
    for name in ("pull", "run"):
        command = parsers[name]
        command.add_argument("-o", "--output", help="the file that the result goes to")
        command.add_argument("--target", help="a target by label, such as sm86-rtx1.7-fp16")
        command.add_argument("--precision", choices=PRECISIONS, help="of the engine")
        command.add_argument(
            "--allow-pending", action="store_true", help="take an engine that has not been run"
        )
        command.add_argument(
            "--allow-seeded", action="store_true", help="take an engine of a dry run"
        )
    return parser


def _output(name: str) -> Path:
    """Returns where a result goes, before any work is done for it.

    Raises:
        UsageError: It is a folder.
    """
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="--output names the file itself")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yields a file to write; it gets its name when it is whole, and is gone otherwise."""
    partial = path.with_name(path.name + ".part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _client(options: argparse.Namespace) -> Client:
    return connect(
        options.store,
        trust=options.trust,
        allow_stale=options.allow_stale,
        say=lambda text: print(text, file=sys.stderr),
    )


def _pull(options: argparse.Namespace) -> Pulled:
    client = _client(options)
    entry = client.select(
        options.model,
        this_machine(),
        target=options.target,
        precision=options.precision,
        allow_pending=options.allow_pending,
        allow_seeded=options.allow_seeded,
    )
    dry_run = ", DRY RUN (seeded weights)" if entry.dry_run else ""
    what = f"{', '.join(entry.targets)}, {entry.status}{dry_run}"
    print(f"{options.model}: {what}", file=sys.stderr)
    return client.pull(options.model, entry)


if __name__ == "__main__":
    sys.exit(main())
