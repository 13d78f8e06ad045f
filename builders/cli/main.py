"""``zoo-farm``: what the Makefile and CI call."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from builders.cli import cluster, images, measure, plan, reference
from builders.cli import executor as cli_executor
from builders.cli import keys as cli_keys
from builders.cli import nightly as cli_nightly
from builders.cli import repository as cli_repository
from builders.cli.options import STORE_HELP, chosen_manifests, published
from builders.cli.preview import serve
from builders.cli.request import ask, failures_beside, places_to_run
from builders.history.failures import Failures
from builders.jobs.messages import BuildOutput, Failure, parse_result
from builders.jobs.progress import Display
from builders.paths import ROOT
from builders.planning.options import add_options, makefile, table
from builders.publish.signer import open_desk
from builders.run.catalog import make_site
from builders.run.farm import Farm
from builders.run.summary import Summary
from builders.toolchains.interpreter import toolchains_of
from zoo.catalog.night import read_nightly
from zoo.cli.main import Parser, add_arguments, client_parser, run_cli
from zoo.client.host import this_machine
from zoo.repository.repository import Repository
from zoo.schema.manifest import (
    HubWeights,
    load_manifests,
    manifest_schema,
    select_manifests,
)
from zoo.stores import open_store
from zoo.util.errors import JobError, RepositoryError, UsageError, VerificationError


def zoo(options: argparse.Namespace) -> int:
    """Builds, proves and publishes engines, then makes the catalog."""
    return _run_zoo(options, None)[0]


def nightly(options: argparse.Namespace) -> int:
    """Does what zoo does, counts failures, and says what failed and what became worse."""
    return cli_nightly.run_night(options, _run_zoo)


def _run_zoo(options: argparse.Namespace, night: str | None) -> tuple[int, Summary]:
    display = Display(Console())
    asked = ask(options, display.say)
    executor = asked.chosen.executor
    repository = Repository(open_store(asked.store))
    try:
        request = replace(asked.request, places=places_to_run(asked))
        desk = open_desk(asked.store, options.keys, display.say)
        farm = Farm(repository, executor, display, desk, Failures(repository, night=night))
        summary = farm.run(request)
    finally:
        executor.stop()
    summary.failed.update(asked.broken)
    status = _print_summary(summary, asked.store, display)
    if desk.waiting:
        keys = " --keys FOLDER" if "://" in asked.store else ""
        waiting = f"{desk.waiting} wait for a signature"
        display.say(f"{waiting}: zoo-farm publish --store {asked.store}{keys}")
    if night is None:  # a night says first what it did
        options.store, options.site = asked.store, str(asked.site)
        cli_nightly.show(options, repository, display.say)
    return status, summary


def verify(options: argparse.Namespace) -> int:
    """Proves published engines that this machine can run; --pending: those not run yet."""
    from builders.run.reverify import Prover, summarise

    manifests, broken = chosen_manifests(options)
    repository, executor, display = (
        published(options),
        cli_executor.local_executor(options),
        Display(Console()),
    )
    machine, python = this_machine(), options.builder_python
    if python:
        machine = replace(machine, toolchains=tuple(toolchains_of(python).values()))
    store = options.store or "_repository"
    desk = open_desk(store, options.keys, display.say)
    prover = Prover(repository, executor, display, failures_beside(store), machine, desk)
    models = {*manifests, *broken} if options.models else None
    proven = prover.run(manifests, broken, models, pending_only=options.pending)
    for line in summarise(proven):
        display.say(line)
    catalog(options)
    return 1 if proven.failed else 0


def check(options: argparse.Namespace) -> int:
    """Hashes every blob of a repository; --repair forgets what is damaged, to be made again."""
    repository = Repository(open_store(options.store or "_repository"))
    found: dict[str, str | None] = {}
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        for key, blob in repository.named_blobs():
            if blob.sha256 not in found:
                found[blob.sha256] = repository.blobs.damage(blob, Path(scratch))
            if damage := found[blob.sha256]:
                bad += 1
                print(f"{key}: blob {blob.sha256} is {damage}")
                if options.repair:
                    repository.forget(key, blob)
    if bad == 0:
        print(f"{len(found)} blobs, all whole")
        return 0
    if options.repair:
        print("forgotten; the next make zoo makes them again")
        return 0
    raise RepositoryError(
        f"{repository.store.url}: {bad} records name damaged or missing blobs",
        hint="zoo-farm check --repair removes them; the next make zoo makes them again",
    )


def lock(options: argparse.Namespace) -> int:
    """Asks the hub for revision, hash and size, and writes them into the manifests."""
    from builders.weights import hub

    folder = Path(options.manifests)
    for manifest in select_manifests(load_manifests(folder), options.models).values():
        if not isinstance(manifest.weights, HubWeights):
            print(f"{manifest.id}: {manifest.weights.source} weights are pinned already")
            continue
        found = hub.look_up(manifest.id, manifest.weights)
        hub.write_lock(folder / f"{manifest.id}.toml", found)
        print(f"{manifest.id}: {manifest.weights.repository} {found.revision} {found.sha256}")
    return 0


def catalog(options: argparse.Namespace) -> int:
    """Makes the catalog from a repository."""
    repository = published(options)
    suffix = "-seeded" if repository.kind() == "dry-run" else ""
    site = Path(options.site or f"_site{suffix}")
    nightly = read_nightly(Path(options.nightly)) if options.nightly else None
    folder = Path(options.manifests)
    make_site(repository, site, options.base_url, nightly, manifests=folder)
    print(f"catalog: {site / 'index.html'}")
    if options.serve is not None:
        serve(site, options.serve)
    return 0


def schema(options: argparse.Namespace) -> int:
    """Writes ``manifests/schema.json`` from the code."""
    path = Path(options.manifests) / "schema.json"
    path.write_text(json.dumps(manifest_schema(), indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0


def unlocked(options: argparse.Namespace) -> int:
    """Lists what is not locked yet: weights of models, bases of images."""
    names = [
        manifest.id
        for manifest in load_manifests(Path(options.manifests)).values()
        if isinstance(manifest.weights, HubWeights) and not manifest.weights.locked
    ]
    print("\n".join(names) if names else "every manifest is locked")
    if names:
        print(f"{len(names)} unlocked; with network: zoo-farm lock", file=sys.stderr)
    if bases := images.unlocked_bases():
        print("\n".join(bases))
        hint = "with network and docker: zoo-farm images --lock"
        print(f"{len(bases)} bases of images unlocked; {hint}", file=sys.stderr)
    return 0


def targets(options: argparse.Namespace) -> int:
    """Shows the targets table: what is made for which GPU, with which TRT=, and what that needs."""
    from builders.cli import targets as targets_table

    text = (
        targets_table.to_json() if options.json else targets_table.to_text(sources=options.sources)
    )
    print(text)
    return 0


def options_of_make(options: argparse.Namespace) -> int:
    """Prints the table of options for README.md, or the contents of other generated files."""
    if options.reference:
        print(reference.page([client_parser(), farm_parser()]), end="")
    else:
        print("\n".join(makefile() if options.makefile else table()))
    return 0


def worker(options: argparse.Namespace) -> int:
    """Runs one job, as an executor does; reproduces a failure from its kept job."""
    from builders.worker import execute as unit

    status = unit.main([options.job, options.output])
    result_file = Path(options.output) / "result.json"
    if not result_file.is_file():
        return status
    result = parse_result.validate_json(result_file.read_bytes())
    if isinstance(result, Failure):
        raise JobError(result.message, hint=result.hint)
    if isinstance(result, BuildOutput) and result.verification and not result.verification.passed:
        raise VerificationError(result.verification.reason or "verification failed")
    print(f"done: {result_file}")
    return status


def main() -> int:
    """Entry point of ``zoo-farm``."""
    return run_cli(farm_parser(), sys.argv[1:])


def farm_parser() -> argparse.ArgumentParser:
    """Returns the argument parser of ``zoo-farm``."""
    parser = Parser(prog="zoo-farm", description="Build, verify and publish engines.")
    parser.add_argument(
        "--manifests", default=str(ROOT / "manifests"), metavar="DIR", help="folder of manifests"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    run = add_arguments(commands, "zoo", zoo)
    night = add_arguments(commands, "nightly", nightly)
    proof = add_arguments(commands, "verify", verify)
    proof.set_defaults(nightly="", serve=None)
    proof.add_argument("--pending", action="store_true", help="only what has not been run yet")
    add_arguments(commands, "lock", lock).add_argument(
        "models", nargs="*", help="ids, globs, families (default: all)"
    )
    site = add_arguments(commands, "catalog", catalog)
    site.add_argument("--serve", type=int, metavar="PORT", help="then show it on this machine")
    site.add_argument("--nightly", default="", help="what a run says of itself, for its report")
    for name, parser_of in (("zoo", run), ("nightly", night), ("verify", proof), ("catalog", site)):
        add_options(parser_of, name)
    measure.add_commands(commands)
    cli_keys.add_commands(commands)
    cli_repository.add_commands(commands)
    plan.add_commands(commands)
    images.add_commands(commands)
    cluster.add_commands(commands)
    health = add_arguments(commands, "check", check)
    health.add_argument("--store", default="", help=STORE_HELP)
    health.add_argument("--repair", action="store_true", help="remove what is damaged")
    add_arguments(commands, "unlocked", unlocked)
    add_arguments(commands, "schema", schema)
    cells = add_arguments(commands, "targets", targets)
    cells.add_argument("--json", action="store_true", help="the whole table, for machines")
    cells.add_argument("--sources", action="store_true", help="where each cell is from, too")
    shown = add_arguments(commands, "options", options_of_make)
    shown.add_argument("--makefile", action="store_true", help="print options.mk instead")
    shown.add_argument(
        "--reference",
        action="store_true",
        help="print docs/reference/command-line.md instead",
    )
    one = add_arguments(commands, "worker", worker)
    one.add_argument("job", help="job.json, as a failure keeps it")
    one.add_argument("output", help="folder for result, log and files")
    return parser


def _print_summary(summary: Summary, store: str, display: Display) -> int:
    for label, reason in summary.disabled.items():
        display.say(f"none {label}: {reason}")
    for label, error in summary.failed.items():
        text = str(error).removeprefix(f"{label}: ")
        display.say(f"FAILED {label}: {text}")
    of_engines = summary.of_engines
    done = [
        f"{len(labels)} {name}"
        for name, labels in (
            ("published", summary.published),
            ("verified again", summary.verified),
            ("already published, nothing to do", summary.current),
            ("that the floors rule out", summary.disabled.keys() - set(of_engines)),
            ("disabled, whose engines missed or failed (RETRY=1 tries them again)", of_engines),
            ("failed", list(summary.failed)),
        )
        if labels
    ]
    display.say(f"{store}: {', '.join(done) if done else 'nothing to build'}")
    if not summary.failed and not done:
        raise UsageError("no engine matches what was asked for")
    return 1 if summary.failed else 0
