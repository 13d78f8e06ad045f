"""The ``zoo`` command: lists, shows, downloads, mirrors and runs engines."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from zoo.cli.command import Parser as Parser
from zoo.cli.command import add_arguments as add_arguments
from zoo.cli.command import run_cli as run_cli
from zoo.cli.support import add_selection, add_store, client_of, output_file, print_json
from zoo.client.client import Client, Pulled, trust_home
from zoo.client.host import this_machine
from zoo.client.models import check_patterns, matching, table
from zoo.client.progress import download_bar
from zoo.client.recommendation import cut, kept, verdicts
from zoo.client.selection import select, why
from zoo.repository.chunked import Transfer
from zoo.schema.index import EngineEntry
from zoo.schema.layout import METADATA
from zoo.schema.targets import PRECISIONS
from zoo.stores import ObjectStore, open_store
from zoo.stores.local import LocalStore
from zoo.util.errors import UsageError, ZooError
from zoo.util.files import whole
from zoo.util.kinds import kind_of_file
from zoo.util.names import counted, listed
from zoo.util.terminal import harmless
from zoo.util.version import __version__


def list_models(options: argparse.Namespace) -> int:
    """Lists the models of a repository."""
    index = client_of(options).index()
    if index.kind.seeded:
        print("DRY RUN: these engines have seeded, not trained weights", file=sys.stderr)
    check_patterns(index.models, options.patterns)
    rows = matching(index.models, options.patterns)
    if options.json:
        print_json([row.model_dump(mode="json", exclude={"index"}) for row in rows])
    else:
        print("\n".join([row.model for row in rows] if options.names else table(rows)))
    return 0


def show(options: argparse.Namespace) -> int:
    """Shows a model and its engines."""
    client = client_of(options)
    model, signed = client.model(options.model), client.signed
    if options.json:
        print_json(model.model_dump(mode="json"))
        return 0
    preprocess = model.preprocess
    print(f"{model.catalog.title} ({model.model})")
    print(f"  {model.catalog.summary}")
    for line in model.catalog.characteristics:
        print(f"  - {line}")
    print(f"  use: {model.catalog.use_case}")
    print(f"  timm: {model.timm_name}; weights: {model.weights}; licence: {model.licence}")
    for change in model.corrected:
        by = f" ({change.by})" if change.by else ""
        print(
            f"    {change.fact} corrected on {change.time[:10]}, from {change.before} to "
            f"{change.after}{by}"
        )
    if (until := signed.expires()) is not None:
        keys = ", ".join(keyid[:16] for keyid in signed.signers())
        print(f"  signed by: key {keys}, valid until {until:%Y-%m-%d %H:%M} UTC")
    print(f"  features: {model.feature_dim} ({model.cut})")
    print(
        f"  input: {preprocess.pixels} px ({preprocess.size_of} size), "
        f"{preprocess.interpolation}, {preprocess.crop_words}, "
        f"mean {preprocess.mean}, std {preprocess.std}"
    )
    for fact, reason in model.deviations.items():
        print(f"  {fact.replace('_', ' ')} differs from what timm or the hub states: {reason}")
    for place, words in verdicts(model).items():
        text = "; ".join(f"{precision}: {word}" for precision, word in words.items())
        print(f"  on {place}, {text}")
    for precision, own in model.own_floors.items():
        print(f"  {precision} has looser tolerances than the zoo for {', '.join(own.looser)}:")
        print(f"    {own.reason}")
    for engine in model.engines:
        _show_engine(engine)
    for other in model.outdone:
        print(f"  {', '.join(other.targets)}: another one is not given out, it has {other.reason}")
    return 0


def _show_engine(engine: EngineEntry) -> None:
    batch, toolchain = engine.batch, engine.toolchain
    print(f"  {', '.join(engine.targets)}: {engine.status}" + (" DRY RUN" * engine.dry_run))
    if engine.reason:
        print(f"    {engine.reason}")
    if engine.superseded:
        print(f"    superseded by a newer engine on {engine.superseded[:10]}")
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
            f"    batch {verified.batch}: worst cosine {cut(verified.worst_cosine, 6)}, "
            f"worst relative error {verified.worst_relative_error:.2g}"
        )
    if engine.verification and engine.verification.probe:
        print(f"    {engine.verification.probe.words}")
    for timed in engine.benchmark.batches if engine.benchmark else ():
        print(
            f"    batch {timed.batch}: {timed.latency_ms:.2f} ms, "
            f"{timed.images_per_second:.1f} images/s"
        )
    for size, reason in engine.unmeasured_times:
        print(f"    batch {size}: speed not measured: {reason}")
    _show_comparison(engine)


def _show_comparison(engine: EngineEntry) -> None:
    for row in engine.comparison.batches if engine.comparison else ():
        print(f"    batch {row.batch} against PyTorch: {row.ratio_words}")
    for batch, reason in engine.unmeasured_ratios:
        at = "" if batch is None else f" at batch {batch}"
        print(f"    speed against PyTorch{at} not measured: {reason}")
    if engine.comparison and (slower := engine.comparison.slower_at):
        print(f"    slower than PyTorch at batch {', '.join(map(str, slower))}")


def pull(options: argparse.Namespace) -> int:
    """Downloads the best engine for this machine, with its licence, and checks its digest."""
    output = output_file(options.output) if options.output else None
    client = client_of(options)
    entry, pulled = _pull(client, options)
    documents = _documents(client, options.model, entry)
    if output is not None:
        for name, path in documents.items():
            with whole(output.with_name(f"{output.name}.{name}")) as partial:
                shutil.copyfile(path, partial)
        with whole(output) as partial:
            shutil.copyfile(pulled.engine, partial)
    placed = {name: f"{output}.{name}" if output else str(path) for name, path in documents.items()}
    if options.json:
        print_json(
            {
                "model": options.model,
                "targets": entry.targets,
                "status": entry.status,
                "engine": str(output or pulled.engine),
                "sha256": entry.engine.sha256,
                "documents": placed,
                "fetched": pulled.transfer.fetched if pulled.transfer else 0,
                "reused": pulled.transfer.reused if pulled.transfer else entry.engine.size,
            }
        )
        return 0
    for name, place in placed.items():
        print(f"{name}: {place}", file=sys.stderr)
    print(output or pulled.engine)
    return 0


def _documents(client: Client, model: str, entry: EngineEntry) -> dict[str, Path]:
    """Returns an engine's LICENSE and NOTICE, none if they can't be had: the engine works."""
    try:
        return client.documents(model, entry)
    except ZooError as error:
        print(harmless(f"{model}: without LICENSE and NOTICE: {error.message}"), file=sys.stderr)
        return {}


def mirror(options: argparse.Namespace) -> int:
    """Verifies and copies a repository or a part of it; resumes interrupted copies."""
    from zoo.catalog.gpus import read_arch
    from zoo.client.mirror import Filter
    from zoo.client.mirror import mirror as copy

    wanted = Filter(
        models=options.models or None,
        archs=[read_arch(name).name for name in options.gpu] if options.gpu else None,
        precisions=[options.precision] if options.precision else None,
    )
    client, destination = client_of(options), _destination(options.destination)
    result = copy(client, destination, wanted, say=print)
    print(
        f"{destination.url}: {counted(result.engines, 'engine')}, "
        f"{counted(result.copied, 'object')} copied, {result.bytes / 2**20:.1f} MiB"
    )
    root = trust_home().hand_on(client.repository.store.url, destination.url)
    store = shlex.quote(destination.url)
    print(
        "trusted on this machine like its origin; elsewhere, once: "
        f"zoo list --store {store} --trust {root}"
    )
    return 0


def _destination(url: str) -> ObjectStore:
    """Opens the store to mirror to.

    Raises:
        UsageError: It is a folder of other files.
    """
    destination = open_store(url)
    if isinstance(destination, LocalStore) and destination.root.exists():
        root = destination.root
        names = [] if (root / METADATA).is_dir() else sorted(path.name for path in root.iterdir())
        if others := [name for name in names if not name.startswith(".")]:
            raise UsageError(
                f"{root} is no repository and contains other files: {listed(others, 3)}",
                hint="give a new or empty folder, or a mirror of the same repository",
            )
    return destination


def main() -> int:
    """Entry point of ``zoo``."""
    arguments = sys.argv[1:]
    return run_cli(client_parser(of_repositories=arguments[:1] in _OWN), arguments)


_OWN = (["list"], ["show"], ["pull"], ["mirror"])
"""The commands of this module, which import no others."""


def client_parser(*, of_repositories: bool = False) -> argparse.ArgumentParser:
    """Returns the argument parser of ``zoo``.

    Args:
        of_repositories: Whether only the commands of this module are to be parsed.
    """
    parser = Parser(prog="zoo", description="Prebuilt, verified engines of frozen backbones.")
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    parser.set_defaults(parser=parser)  # zoo completion describes the parser itself
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    parsers = {
        name: add_arguments(commands, name, command)
        for name, command in (
            ("list", list_models),
            ("show", show),
            ("pull", pull),
            ("mirror", mirror),
        )
    }
    for name, command in parsers.items():
        add_store(command)
        if name not in ("list", "mirror"):
            command.add_argument("model", help="model id, as listed by zoo list")
    form = parsers["list"].add_mutually_exclusive_group()
    form.add_argument("--names", action="store_true", help="print only the models' ids")
    for own in (form, parsers["show"], parsers["pull"]):
        own.add_argument("--json", action="store_true", help="print JSON")
    parsers["list"].add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="ids, patterns such as 'vit_*', or families"
    )
    parsers["mirror"].add_argument("destination", help="URL or folder to copy to")
    parsers["mirror"].add_argument(
        "--models", nargs="+", metavar="MODEL", help="only these models (default: all)"
    )
    parsers["mirror"].add_argument(
        "--gpu",
        nargs="+",
        metavar="SM",
        help="only engines for these GPUs, such as sm86 or rtx3080 (default: all)",
    )
    parsers["mirror"].add_argument(
        "--precision",
        choices=tuple(map(str, PRECISIONS)),
        help="only engines of this precision (default: all)",
    )
    parsers["pull"].add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="copy the engine to this file (default: keep it in the cache only)",
    )
    parsers["pull"].add_argument(
        "--seed",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files with some of the same bytes, such as the ONNX; chunks in them are not "
        "downloaded (default: only the model's cached engines)",
    )
    parsers["pull"].add_argument(
        "--whole", action="store_true", help="download the whole engine, not chunks that are new"
    )
    for name in ("pull", "mirror"):
        parsers[name].set_defaults(resumes=True)  # what Ctrl-C may say
    add_selection(parsers["pull"])
    if not of_repositories:
        _add_others(commands)
    return parser


def _add_others(commands: Any) -> None:
    from zoo.cli import cache, caft_options, completion, doctor, run, similar

    run.add_command(commands)
    caft_options.add_commands(commands)
    similar.add_commands(commands)
    cache.add_commands(commands)
    doctor.add_commands(commands)
    completion.add_command(commands)


def seeds_of(options: argparse.Namespace) -> list[Path]:
    """Returns the files that ``--seed`` names.

    Raises:
        UsageError: One is not a file.
    """
    seeds = [Path(name) for name in options.seed]
    for seed in seeds:
        if not seed.is_file():
            what = f"{kind_of_file(seed)}, not a file" if seed.exists() else "no such file"
            raise UsageError(f"--seed {seed}: {what}", hint="name a file, such as the ONNX")
    return seeds


def transfer_words(transfer: Transfer) -> str:
    """Returns what a download cost as a sentence."""
    return (
        f"fetched {transfer.fetched / 2**20:.2f} MiB, reused {transfer.reused / 2**20:.2f} MiB "
        "that were on this machine"
    )


def _pull(client: Client, options: argparse.Namespace) -> tuple[EngineEntry, Pulled]:
    machine = this_machine()
    index = client.model(options.model)
    entry = select(
        index,
        machine,
        target=options.target,
        precision=options.precision,
        allow_pending=options.allow_pending,
        allow_seeded=options.allow_seeded,
    )
    print(harmless(f"{options.model}: {why(entry, machine, index)}"), file=sys.stderr)
    with download_bar(entry.engine.size) as progress:
        pulled = client.pull(
            options.model, entry, progress, seeds=seeds_of(options), whole=options.whole
        )
    if entry.chunks is not None and pulled.transfer is not None:
        print(transfer_words(pulled.transfer), file=sys.stderr)
    for sentence in client.corrections(options.model, entry):
        print(harmless(sentence), file=sys.stderr)
    return entry, pulled
