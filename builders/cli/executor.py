"""Options that choose where jobs run: ``--executor`` and the options of each executor."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

from builders.cli.cluster import open_cluster
from builders.executors import Executor, LocalExecutor
from builders.executors.at_once import automatic_jobs, parse_jobs
from builders.executors.local import parse_limit
from builders.toolchains.installed import choose_toolchains, default_archs
from builders.toolchains.interpreter import toolchains_of, worker_command
from zoo.client.host import installed
from zoo.schema.closed import Unknown
from zoo.schema.targets import Arch, RuntimeLine, Toolchain
from zoo.util.errors import UsageError
from zoo.util.names import perhaps

_EXECUTORS = ("local", "docker", "dask")

Choose = Callable[[list[Arch], RuntimeLine | None], dict[Arch, Toolchain]]
"""Chooses the toolchain that builds for each architecture."""


class _Limits(TypedDict):
    timeout: float
    memory: int | None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The place where jobs run.

    Attributes:
        executor: Runs the jobs.
        archs: Architectures that they build for.
        choose: Chooses the toolchain for each architecture.
    """

    executor: Executor
    archs: list[Arch]
    choose: Choose

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first architecture on which an engine can be verified; None if on none."""
        if isinstance(toolchain.kind, Unknown):
            return None
        return self.executor.runs_on(archs, toolchain)


def local_executor(options: argparse.Namespace) -> LocalExecutor:
    """Returns an executor that runs jobs on this machine within ``--timeout`` and ``--memory``."""
    return LocalExecutor(build_command=worker_command(options.builder_python), **_limits(options))


def runs_here(options: argparse.Namespace) -> bool:
    """Returns whether jobs run in processes of this machine, not in containers or a cluster.

    Raises:
        UsageError: There is no such executor, or an option belongs to another one.
    """
    if options.executor not in ("", *_EXECUTORS):
        raise UsageError(
            f"no executor '{options.executor}'.{perhaps(options.executor, _EXECUTORS)}",
            hint=f"EXECUTOR= (--executor) is one of {', '.join(_EXECUTORS)}",
        )
    for name in ("scheduler", "certs"):
        if getattr(options, name) and options.executor != "dask":
            raise UsageError(
                f"{name.upper()}= (--{name}) needs a cluster, but jobs would run on this machine",
                hint="EXECUTOR=dask (--executor) runs them on the cluster",
            )
    here = options.executor in ("", "local")
    if options.jobs and not here:
        raise UsageError(
            f"JOBS= (--jobs) is not supported with EXECUTOR={options.executor}",
            hint="leave it out: a cluster runs as many jobs at once as it has workers, and "
            "containers run one by one",
        )
    return here


def choose_executor(options: argparse.Namespace, requested: list[Arch]) -> Chosen:
    """Returns where jobs run.

    Args:
        options: The options of this module and ``builder_python``.
        requested: Architectures that ``GPU=`` names; empty for the executor's default.

    Raises:
        UsageError: There is no such executor, or an option that it needs is missing or wrong.
        ClusterError: The cluster can't be reached.
    """
    here = runs_here(options)
    if options.executor == "dask":
        cluster = open_cluster(
            options.scheduler, options.certs, options.builder_python, **_limits(options)
        )
        archs = requested or cluster.default_archs()
        return Chosen(executor=cluster, archs=archs, choose=cluster.choose_toolchains)
    python, archs = options.builder_python, requested or default_archs()
    if not here:
        from builders.executors.docker import DockerExecutor

        if python:
            raise UsageError(
                "BUILDER_PYTHON= is not supported with EXECUTOR=docker: an image has its own"
            )
        engine = DockerExecutor(**_limits(options))
        return Chosen(executor=engine, archs=archs, choose=engine.choose_toolchains)
    find = toolchains_of(python).get if python else installed
    choose = partial(choose_toolchains, find=find)
    limits = _limits(options)
    local = LocalExecutor(
        build_command=worker_command(python),
        exports_at_once=parse_jobs(options.jobs) or automatic_jobs(limits["memory"]),
        warm=True,
        **limits,
    )
    return Chosen(executor=local, archs=archs, choose=choose)


def _limits(options: argparse.Namespace) -> _Limits:
    return {
        "timeout": parse_limit("TIMEOUT", options.timeout) or 3600,
        "memory": int(2**30 * (parse_limit("MEMORY", options.memory) or 0)) or None,
    }
