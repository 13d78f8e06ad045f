"""Commands of ``zoo-farm cluster``: certificates, a scheduler, workers, and what there is."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.executors.dask.tls import CERTS, certs_folder
from zoo.cli.main import add_arguments
from zoo.util.errors import ClusterError, UsageError
from zoo.util.version import __version__

if TYPE_CHECKING:
    from builders.executors.dask.client import DaskExecutor

SCHEDULER_HELP = "a cluster's scheduler, tls://host:8786"
CERTS_HELP = f"folder of its certificates (default: ${CERTS})"


def add_commands(commands: Any) -> None:
    """Adds them to a parser's subcommands."""
    parser = commands.add_parser("cluster", help="many machines: certificates, scheduler, workers")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    made = add_arguments(actions, "certs", certs)
    made.add_argument("folder", help="where to; a machine gets ca.pem and the two of its role")
    made.add_argument("--days", type=int, default=365, help="how long they are valid")
    both = add_arguments(actions, "up", up)
    one = add_arguments(actions, "scheduler", scheduler)
    for starts in (both, one):
        starts.add_argument("--listen", default="127.0.0.1:8786", help="host:port")
    many = add_arguments(actions, "worker", worker)
    shown = add_arguments(actions, "status", status)
    for joins in (many, shown):
        joins.add_argument("scheduler", help=SCHEDULER_HELP)
    shown.add_argument("--json", action="store_true", help="for programs")
    for works in (both, many):
        works.add_argument("--cpu-slots", type=int, default=1, help="workers without a GPU")
        works.add_argument("--name", default="", help="of this machine (default: its host name)")
        works.add_argument("--builder-python", default="", help="the Python that builds")
    for secured in (both, one, many, shown):
        secured.add_argument("--certs", default="", help=CERTS_HELP)


def open_cluster(
    scheduler: str, certs: str, builder_python: str, *, timeout: float, memory: int | None
) -> DaskExecutor:
    """Returns what runs jobs on a cluster.

    Args:
        scheduler: Its address, ``tls://host:8786``.
        certs: Folder of its certificates; empty for where the environment says.
        builder_python: Refused: it is the workers' own.
        timeout: Seconds that a job may take.
        memory: Bytes that it may have; None for no limit.

    Raises:
        UsageError: There is no address, or a Python is asked for.
        ClusterError: The scheduler can't be reached.
    """
    from builders.executors.dask.client import DaskExecutor

    if not scheduler:
        raise UsageError(
            "EXECUTOR=dask (--executor) needs SCHEDULER=tls://host:8786 (--scheduler)",
            hint="zoo-farm cluster up starts one on this machine and prints its address",
        )
    if builder_python:
        raise UsageError(
            "BUILDER_PYTHON= is the workers' own, on a cluster",
            hint="zoo-farm cluster worker takes it: --builder-python",
        )
    return DaskExecutor(scheduler, certs_folder(certs), timeout=timeout, memory=memory)


def certs(options: argparse.Namespace) -> int:
    """Makes an authority and certificates for a cluster; again, certificates alone."""
    from builders.executors.dask.certificates import make_certs

    made = make_certs(Path(options.folder), options.days)
    for path in made:
        print(path)
    print("ca-key.pem signs more of them: it stays here; no machine of the cluster needs it")
    return 0


def up(options: argparse.Namespace) -> int:
    """Runs a scheduler and this machine's workers, until Ctrl-C."""
    return _serve(options, listen=options.listen, join=None, works=True)


def scheduler(options: argparse.Namespace) -> int:
    """Runs a scheduler, until Ctrl-C."""
    return _serve(options, listen=options.listen, join=None, works=False)


def worker(options: argparse.Namespace) -> int:
    """Finds out what this machine can build and runs its workers, until Ctrl-C."""
    from builders.executors.dask.tls import check_address

    check_address(options.scheduler, certs_folder(options.certs))
    return _serve(options, listen=None, join=options.scheduler, works=True)


def status(options: argparse.Namespace) -> int:
    """Shows the workers of a cluster and what they can build."""
    from builders.executors.dask.client import DaskExecutor

    cluster = DaskExecutor(options.scheduler, certs_folder(options.certs))
    try:
        slots, others = cluster.workers(), cluster.left_out()
    finally:
        cluster.stop()
    if options.json:
        print(json.dumps([slot.model_dump(mode="json") for slot in slots], indent=1))
        return 0
    for slot in slots:
        print(f"{slot.name}: {', '.join(slot.builds)}")
    for slot in others:
        print(f"{slot.name}: left out, it runs version {slot.version}; this is {__version__}")
    if not slots:
        raise ClusterError(
            f"{options.scheduler} has no workers",
            hint=f"zoo-farm cluster worker {options.scheduler} adds the machine that it runs on",
        )
    print(f"{len(slots)} workers on {len({slot.host for slot in slots})} machines")
    return 0


def _serve(
    options: argparse.Namespace, *, listen: str | None, join: str | None, works: bool
) -> int:
    from builders.executors.dask.capabilities import probe
    from builders.executors.dask.cluster import run

    def say(text: str) -> None:
        print(text, flush=True)

    slots = []
    if works:
        if options.cpu_slots < 0:
            raise UsageError(f"--cpu-slots {options.cpu_slots}: there can't be fewer than none")
        slots = probe(options.builder_python, options.cpu_slots, say=say, host=options.name or None)
        if not slots:
            raise ClusterError(
                "this machine can build nothing"
                + (" with --cpu-slots 0: it has no GPU" if not options.cpu_slots else ""),
                hint="pip install '.[worker]' and a runtime; zoo-farm targets has the table",
            )
    with tempfile.TemporaryDirectory(prefix="zoo-cluster-") as scratch:
        return run(
            listen=listen,
            scheduler=join,
            slots=slots,
            certs=certs_folder(options.certs),
            scratch=Path(scratch),
            say=say,
        )
