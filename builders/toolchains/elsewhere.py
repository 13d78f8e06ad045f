"""Places: which toolchain builds for which architecture, here or on other machines.

A plan need not be made where engines are built. For a toolchain that this machine lacks, the plan
assumes the one that built the newest published engine of that runtime line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from builders.toolchains.installed import Find, choose_toolchain
from zoo.client.host import Run, installed, local_archs, run_command
from zoo.schema.closed import Unknown
from zoo.schema.published import AnyEngine, AnyModel
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
    """The toolchains that build, and where.

    Attributes:
        lines: For each runtime line, the toolchain of each architecture.
        elsewhere: Architectures that another machine is assumed to have.
        here: Architectures of this machine.
        verifies_on: Returns the architecture on which an engine is verified, if jobs run on other
            machines; None for this machine.
        notes: Assumptions made, as sentences.
    """

    lines: tuple[Mapping[Arch, Toolchain], ...]
    elsewhere: frozenset[Arch]
    here: frozenset[Arch]
    notes: tuple[str, ...] = ()
    verifies_on: Callable[[Sequence[Arch], Toolchain], Arch | None] | None = None

    def runs_on(self, archs: Sequence[Arch], toolchain: Toolchain) -> Arch | None:
        """Returns the first of an engine's architectures on which it is verified.

        TensorRT builds on the GPU that the engine is for, so the machine that builds can verify it.
        Other runtimes build without that GPU: only architectures of this machine count.
        """
        if self.verifies_on is not None:
            return self.verifies_on(archs, toolchain)
        kind = toolchain.kind
        if isinstance(kind, Unknown):
            return None
        available = self.here if is_portable(kind) else self._anywhere
        return next((arch for arch in archs if arch in available), None)

    @cached_property
    def _anywhere(self) -> frozenset[Arch]:
        return self.here | self.elsewhere


def find_places(
    archs: Sequence[Arch],
    lines: Sequence[RuntimeLine],
    models: Sequence[AnyModel],
    run: Run = run_command,
    find: Find = installed,
) -> Places:
    """Returns the toolchain of each architecture and runtime line, assumed if not installed here.

    Args:
        archs: Architectures to build for.
        lines: Lines that ``TRT=`` names; empty to choose one per architecture.
        models: Published indexes, to assume toolchains from.
        run: Runs ``nvidia-smi``.
        find: Returns the installed toolchain of a runtime.

    Raises:
        UsageError: A line does not exist.
        TargetError: None of the lines serves one of the architectures.
    """
    cached_run = _cached(run)
    cached_find = cache(find)
    by_line: dict[RuntimeLine, dict[Arch, Toolchain]] = {}
    notes: dict[str, None] = {}
    elsewhere = set()
    newest = _newest(models)
    for arch in archs:
        for line in _lines_of(arch, archs, lines):
            try:
                chain = choose_toolchain(arch, line, cached_run, cached_find)
            except TargetError:
                if line is not None and line not in gpu_lines():
                    raise
                chain, note = _assumed(arch, line, newest)
                notes[note] = None
                elsewhere.add(arch)
            by_line.setdefault(chain.line, {})[arch] = chain
    here = {Arch("cpu"), *local_archs(cached_run)}
    return Places(
        lines=tuple(by_line.values()),
        elsewhere=frozenset(elsewhere),
        here=frozenset(here),
        notes=tuple(notes),
    )


def offered_places(
    archs: Sequence[Arch],
    lines: Sequence[RuntimeLine],
    choose: Callable[[list[Arch], RuntimeLine | None], dict[Arch, Toolchain]],
    verifies_on: Callable[[Sequence[Arch], Toolchain], Arch | None],
) -> Places:
    """Returns the toolchains of an executor whose machines or containers report what they have.

    Args:
        archs: Architectures to build for.
        lines: Lines that ``TRT=`` names; empty to choose one per architecture.
        choose: Chooses among the toolchains that the executor offers.
        verifies_on: Returns the architecture on which an engine is verified.

    Raises:
        TargetError: None of the lines serves one of the architectures.
        ZooError: The executor can't build for one of them.
    """
    by_line: dict[RuntimeLine, dict[Arch, Toolchain]] = {}
    for arch in archs:
        for line in _lines_of(arch, archs, lines):
            chain = choose([arch], line)[arch]
            by_line.setdefault(chain.line, {})[arch] = chain
    return Places(
        lines=tuple(by_line.values()),
        elsewhere=frozenset(),
        here=frozenset(),
        verifies_on=verifies_on,
    )


def _lines_of(
    arch: Arch, archs: Sequence[Arch], lines: Sequence[RuntimeLine]
) -> Sequence[RuntimeLine | None]:
    """Returns the requested lines that apply to an architecture; None stands for its default.

    ``TRT=`` applies to GPU targets only, unless all targets are CPUs.

    Raises:
        TargetError: No requested line serves the architecture.
    """
    if not lines or (arch.is_cpu and not all(other.is_cpu for other in archs)):
        return (None,)
    if arch.is_cpu:
        return lines
    reasons = {line: not_served(arch, line) for line in lines if line in gpu_lines()}
    serving = [line for line in lines if reasons.get(line) is None]
    if not serving:
        raise TargetError("; ".join(reason for reason in reasons.values() if reason))
    return serving


def _newest(models: Sequence[AnyModel]) -> dict[Toolchain, list[AnyEngine]]:
    """Returns the published engines by the toolchain that built them, newest first."""
    engines: dict[Toolchain, list[AnyEngine]] = {}
    entries = [entry for model in models for entry in model.current]
    for entry in sorted(entries, key=lambda entry: entry.created, reverse=True):
        engines.setdefault(entry.toolchain, []).append(entry)
    return engines


def _assumed(
    arch: Arch, line: RuntimeLine | None, newest: dict[Toolchain, list[AnyEngine]]
) -> tuple[Toolchain, str]:
    """Returns the toolchain assumed to build for an architecture elsewhere, and a note about it."""
    if line is None:
        for_arch = [
            entry
            for entries in newest.values()
            for entry in entries
            if any(arch_of(label) == str(arch) for label in entry.targets)
        ]
        last = max(for_arch, key=lambda entry: entry.created, default=None)
        line = last.toolchain.line if last else lines_for(arch)[0]
    of_line = [entries[0] for chain, entries in newest.items() if chain.line == line]
    if of_line:
        chain = max(of_line, key=lambda entry: entry.created).toolchain
        return chain, (
            f"{line} is assumed to be {chain.version}, which built its newest published engine: "
            "this machine can't build with it"
        )
    unknown = Toolchain(kind=line.kind, version=line.version, os="linux", machine="x86_64")
    return unknown, f"{line}: no engine is published, so the version that will build is not known"


def _cached(run: Run) -> Run:
    """Returns a runner that runs each command once and repeats its output or error."""
    outcome: Callable[[tuple[str, ...]], str | OSError] = cache(lambda command: _try(run, command))

    def run_cached(command: list[str]) -> str:
        output = outcome(tuple(command))
        if isinstance(output, OSError):
            raise output
        return output

    return run_cached


def _try(run: Run, command: tuple[str, ...]) -> str | OSError:
    try:
        return run(list(command))
    except OSError as error:
        return error
