"""Places: what builds for which architecture, here or on the machines that a plan is for.

A plan need not be made where engines are built. What this machine can't build with is taken to be
what built the newest published engine of that runtime line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from builders.toolchains.installed import Find, choose_toolchain
from zoo.client.host import Run, installed, local_archs, run_command
from zoo.runtime import SESSIONS
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import (
    Arch,
    RuntimeLine,
    Toolchain,
    arch_of,
    gpu_lines,
    lines_for,
    not_served,
)
from zoo.util.errors import TargetError


@dataclass(frozen=True, kw_only=True)
class Places:
    """What builds.

    Attributes:
        lines: For each runtime line, what builds for each architecture.
        elsewhere: Architectures that are taken to be on the machine that builds for them.
        here: Architectures of this machine.
        proves: Says on which of an engine's architectures it is run, where jobs run elsewhere than
            on this machine; None for this machine.
        notes: What was assumed.
    """

    lines: tuple[Mapping[Arch, Toolchain], ...]
    elsewhere: frozenset[Arch]
    here: frozenset[Arch]
    notes: tuple[str, ...] = ()
    proves: Callable[[Sequence[Arch], Toolchain], Arch | None] | None = None

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures on which it is run and proven.

        TensorRT builds on the very GPU; of other runtimes, only what this machine has counts.
        """
        if self.proves is not None:
            return self.proves(archs, toolchain)
        kind = toolchain.kind
        if kind not in SESSIONS:
            return None
        counted = self.here | (self.elsewhere if not is_portable(kind) else frozenset())
        return next((arch for arch in archs if arch in counted), None)


def find_places(
    archs: Sequence[Arch],
    lines: Sequence[RuntimeLine],
    models: Sequence[ModelIndex],
    run: Run = run_command,
    find: Find = installed,
) -> Places:
    """Says what builds for each architecture with each runtime line.

    Args:
        archs: What is asked for.
        lines: What ``TRT=`` says; none to choose for each architecture.
        models: What is published.
        run: Runs ``nvidia-smi``.
        find: Looks up what is installed.

    Raises:
        UsageError: A line does not exist.
        TargetError: None of the lines serves one of the architectures.
    """
    once = _once(run)
    look = cache(find)
    found: dict[RuntimeLine, dict[Arch, Toolchain]] = {}
    notes: dict[str, None] = {}
    elsewhere = set()
    newest = _newest(models)
    for arch in archs:
        for line in _lines_of(arch, archs, lines):
            try:
                chain = choose_toolchain(arch, line, once, look)
            except TargetError:
                if line is not None and line not in gpu_lines():
                    raise
                chain, note = _assumed(arch, line, newest)
                notes[note] = None
                elsewhere.add(arch)
            found.setdefault(chain.line, {})[arch] = chain
    here = {Arch("cpu"), *local_archs(once)}
    return Places(
        lines=tuple(found.values()),
        elsewhere=frozenset(elsewhere),
        here=frozenset(here),
        notes=tuple(notes),
    )


def offered_places(
    archs: Sequence[Arch],
    lines: Sequence[RuntimeLine],
    choose: Callable[[list[Arch], RuntimeLine | None], dict[Arch, Toolchain]],
    proves: Callable[[Sequence[Arch], Toolchain], Arch | None],
) -> Places:
    """Says what builds where jobs run on other machines, or in containers, that tell it.

    Args:
        archs: What is asked for.
        lines: What ``TRT=`` says; none to choose for each architecture.
        choose: Picks among what they have.
        proves: Says where what was built is run.

    Raises:
        TargetError: None of the lines serves one of the architectures.
        ZooError: Nothing there builds for one of them.
    """
    found: dict[RuntimeLine, dict[Arch, Toolchain]] = {}
    for arch in archs:
        for line in _lines_of(arch, archs, lines):
            chain = choose([arch], line)[arch]
            found.setdefault(chain.line, {})[arch] = chain
    return Places(
        lines=tuple(found.values()), elsewhere=frozenset(), here=frozenset(), proves=proves
    )


def _lines_of(
    arch: Arch, archs: Sequence[Arch], lines: Sequence[RuntimeLine]
) -> Sequence[RuntimeLine | None]:
    """Returns the lines that are meant for one of the architectures, None for its default.

    ``TRT=`` is about the GPUs among them.

    Raises:
        TargetError: None of those that were asked for serves it.
    """
    if not lines or (arch.is_cpu and not all(one.is_cpu for one in archs)):
        return (None,)
    if arch.is_cpu:
        return lines
    reasons = {line: not_served(arch, line) for line in lines if line in gpu_lines()}
    serving = [line for line in lines if reasons.get(line) is None]
    if not serving:
        raise TargetError("; ".join(reason for reason in reasons.values() if reason))
    return serving


def _newest(models: Sequence[ModelIndex]) -> dict[Toolchain, list[EngineEntry]]:
    """Returns the published engines by the toolchain that built them, the newest first."""
    found: dict[Toolchain, list[EngineEntry]] = {}
    entries = [entry for model in models for entry in model.current]
    for entry in sorted(entries, key=lambda one: one.created, reverse=True):
        found.setdefault(entry.toolchain, []).append(entry)
    return found


def _assumed(
    arch: Arch, line: RuntimeLine | None, newest: dict[Toolchain, list[EngineEntry]]
) -> tuple[Toolchain, str]:
    """Returns what is taken to build for an architecture elsewhere, and says so."""
    if line is None:
        there = [
            entry
            for entries in newest.values()
            for entry in entries
            if any(arch_of(label) == str(arch) for label in entry.targets)
        ]
        last = max(there, key=lambda one: one.created, default=None)
        line = last.toolchain.line if last else lines_for(arch)[0]
    alike = [entries[0] for chain, entries in newest.items() if chain.line == line]
    if alike:
        chain = max(alike, key=lambda one: one.created).toolchain
        return chain, (
            f"{line} is taken to be {chain.version}, which built the newest engine that "
            "is published: this machine can't build with it"
        )
    unknown = Toolchain(kind=line.kind, version=line.version, os="linux", machine="x86_64")
    return unknown, f"{line}: nothing is published, so which version will build is not known"


def _once(run: Run) -> Run:
    """Returns a runner that runs each command once."""
    said: Callable[[tuple[str, ...]], str | OSError] = cache(lambda command: _try(run, command))

    def again(command: list[str]) -> str:
        answer = said(tuple(command))
        if isinstance(answer, OSError):
            raise answer
        return answer

    return again


def _try(run: Run, command: tuple[str, ...]) -> str | OSError:
    try:
        return run(list(command))
    except OSError as error:
        return error
