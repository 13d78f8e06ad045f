"""``zoo-farm cluster``: makes certificates, runs a scheduler and workers, shows their status."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.command import add_arguments
from zoo.cluster import CERTS
from zoo.cluster.tls import certs_folder
from zoo.util.errors import ClusterError, UsageError
from zoo.util.names import counted
from zoo.util.version import __version__

if TYPE_CHECKING:
    from builders.executors.dask.client import DaskExecutor

SCHEDULER_HELP = "address of a cluster's scheduler, tls://host:8786"
CERTS_HELP = f"folder of the cluster's certificates (default: ${CERTS})"


def add_commands(commands: Any) -> None:
    """Adds the command and its actions to the parser's subcommands."""
    parser = commands.add_parser("cluster", help="many machines: certificates, scheduler, workers")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    of_certs = add_arguments(actions, "certs", certs)
    of_certs.add_argument(
        "folder", help="output folder; a machine gets ca.pem and the two files of its role"
    )
    of_certs.add_argument(
        "--days", type=int, default=365, help="days until they expire (default: 365)"
    )
    of_up = add_arguments(actions, "up", up)
    of_scheduler = add_arguments(actions, "scheduler", scheduler)
    for starting in (of_up, of_scheduler):
        starting.add_argument(
            "--listen", default="127.0.0.1:8786", help="host:port (default: 127.0.0.1:8786)"
        )
    of_worker = add_arguments(actions, "worker", worker)
    of_status = add_arguments(actions, "status", status)
    for connecting in (of_worker, of_status):
        connecting.add_argument("scheduler", help=SCHEDULER_HELP)
    of_status.add_argument("--json", action="store_true", help="print JSON")
    for working in (of_up, of_worker):
        working.add_argument(
            "--cpu-slots", type=int, default=1, help="workers without a GPU (default: 1)"
        )
        working.add_argument("--name", default="", help="this machine's name (default: host name)")
        working.add_argument(
            "--builder-python", default="", help="the Python that builds (default: this one)"
        )
    for secured in (of_up, of_scheduler, of_worker, of_status):
        secured.add_argument("--certs", default="", help=CERTS_HELP)


def open_cluster(
    scheduler: str, certs: str, builder_python: str, *, timeout: float, memory: int | None
) -> DaskExecutor:
    """Returns an executor that runs jobs on a cluster.

    Args:
        scheduler: Address of its scheduler, ``tls://host:8786``.
        certs: Folder of its certificates; empty for the one that the environment names.
        builder_python: Must be empty: each worker has its own.
        timeout: Seconds that a job may take.
        memory: Bytes of memory that a job may use; None for no limit.

    Raises:
        UsageError: There is no address, or ``builder_python`` is given.
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
            "BUILDER_PYTHON= is not supported on a cluster: each worker has its own",
            hint="give it to the worker: zoo-farm cluster worker --builder-python",
        )
    return DaskExecutor(scheduler, certs_folder(certs), timeout=timeout, memory=memory)


def certs(options: argparse.Namespace) -> int:
    """Creates a cluster's certificate authority, unless it exists, and certificates."""
    from builders.executors.dask.certificates import make_certs

    for path in make_certs(Path(options.folder), options.days):
        print(path)
    print("ca-key.pem signs further certificates: keep it here; no machine of the cluster needs it")
    return 0


def up(options: argparse.Namespace) -> int:
    """Runs a scheduler and this machine's workers until Ctrl-C."""
    return _serve(options, listen=options.listen, join=None, works=True)


def scheduler(options: argparse.Namespace) -> int:
    """Runs a scheduler until Ctrl-C."""
    return _serve(options, listen=options.listen, join=None, works=False)


def worker(options: argparse.Namespace) -> int:
    """Probes what this machine can build and runs its workers until Ctrl-C."""
    from zoo.cluster.tls import check_address

    check_address(options.scheduler, certs_folder(options.certs))
    return _serve(options, listen=None, join=options.scheduler, works=True)


def status(options: argparse.Namespace) -> int:
    """Shows the workers of a cluster and what they can build."""
    from builders.executors.dask.client import DaskExecutor

    cluster = DaskExecutor(options.scheduler, certs_folder(options.certs))
    try:
        slots, ignored = cluster.workers(), cluster.left_out()
    finally:
        cluster.stop()
    if options.json:
        print(json.dumps([slot.model_dump(mode="json") for slot in slots], indent=1))
        return 0
    for slot in slots:
        print(f"{slot.name}: {', '.join(slot.builds)}")
    for slot in ignored:
        print(f"{slot.name}: ignored: it runs version {slot.version}; this is {__version__}")
    if not slots:
        raise ClusterError(
            f"{options.scheduler} has no workers",
            hint=f"add a machine: run zoo-farm cluster worker {options.scheduler} on it",
        )
    hosts = {slot.host for slot in slots}
    print(f"{counted(len(slots), 'worker')} on {counted(len(hosts), 'machine')}")
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
            raise UsageError(f"--cpu-slots {options.cpu_slots}: must be 0 or more")
        slots = probe(options.builder_python, options.cpu_slots, say=say, host=options.name or None)
        if not slots:
            raise ClusterError(
                "this machine can't build anything"
                + (" with --cpu-slots 0: it has no GPU" if not options.cpu_slots else ""),
                hint="pip install '.[worker]' and a runtime; zoo-farm targets lists the runtimes",
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
