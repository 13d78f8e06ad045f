"""Selection: which published engine fits a machine best, or why none does. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import assert_never

from zoo.schema.closed import Unknown
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.precisions import PRECISION_FACTS
from zoo.schema.records import Status
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, preference_of, title_of
from zoo.schema.targets import Toolchain, arch_of
from zoo.schema.targets_table import target_table
from zoo.util.errors import SelectionError
from zoo.util.names import perhaps

Rank = tuple[int, int, int, int, int]
"""How well an engine fits: the numbers of :func:`select`'s order, the least being the best."""

_NO_RANK: Rank = (0, 0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine can run.

    Attributes:
        archs: Names of its architectures, ``cpu`` included, best first.
        toolchains: Runtimes that are installed.
        driver: Version of the NVIDIA driver, ``580.65.06``; None without one, or where it is not
            known.
    """

    archs: tuple[str, ...]
    toolchains: tuple[Toolchain, ...]
    driver: str | None = None


def select(
    model: ModelIndex,
    machine: Machine,
    *,
    target: str | None = None,
    precision: str | None = None,
    allow_pending: bool = False,
    allow_seeded: bool = False,
) -> EngineEntry:
    """Picks the engine that fits a machine.

    The order: a target that is asked for by label wins, whatever the machine is (to fetch for
    another one). Else

    1. the machine's architectures in their order, its GPU before its CPU, where the driver is new
       enough for the runtime's CUDA;
    2. among engines for one: TensorRT, whose toolchain, OS and CUDA must match exactly; then
       TensorRT-RTX, which is portable and compiled on the spot; then ONNX Runtime;
    3. an engine of this architecture alone before one that serves several;
    4. the exact toolchain before another build that reads it (ONNX Runtime reads older models);
    5. fp16 and bf16, which are faster, before fp32. int8 comes last: it costs the features
       something, and is taken when it is asked for.

    Args:
        model: The model's index.
        machine: What the machine has.
        target: Label of the one target that is wanted.
        precision: The one that is wanted.
        allow_pending: Whether an engine that has not been run will do.
        allow_seeded: Whether a dry run's engine will do.

    Raises:
        SelectionError: None fits; says why for each.
    """
    labels = sorted(label for engine in model.engines for label in engine.targets)
    if target is not None and target not in labels:
        raise SelectionError(
            f"{model.model}: nothing is published for {target}.{perhaps(target, labels)}",
            hint=f"there is {', '.join(labels) or 'nothing'}",
        )
    reasons: list[str] = []
    on_offer = False  # whether an option would give one
    fitting: list[tuple[Rank, EngineEntry]] = []
    for engine in model.engines:
        if target is not None and target not in engine.targets:
            continue
        if precision is not None and precision != engine.precision:
            reasons.append(f"{'+'.join(engine.targets)}: {precision} is asked for")
            continue
        rank, why_not = (_NO_RANK, None) if target else fit(engine, machine)
        fits = why_not is None
        if why_not is None:
            why_not = _held_back(engine, allow_pending=allow_pending)
        if why_not is None and engine.dry_run and not allow_seeded:
            why_not = "a dry run with seeded weights; --allow-seeded takes it all the same"
        if why_not is None:
            fitting.append((rank, engine))
        else:
            reasons.append(f"{'+'.join(engine.targets)}: {why_not}")
            on_offer |= fits and engine.status != Status.WITHDRAWN
    if fitting:
        return min(fitting, key=lambda pair: (pair[1].superseded is not None, pair[0]))[1]
    near = [
        engine
        for engine in model.engines
        if engine.status != Status.WITHDRAWN
        and target in (None, *engine.targets)
        and precision in (None, engine.precision)
    ]
    asked = f" in {precision}" if precision else ""
    raise SelectionError(
        f"{model.model}: no published engine{asked} will do{_why_none(near, machine)}"
        + "\n    ".join(["", *(reasons or ["nothing is published"])]),
        hint=None if on_offer else _what_to_do(model.model, near, machine, target, precision),
    )


def _held_back(engine: EngineEntry, *, allow_pending: bool) -> str | None:
    """Says why an engine's status keeps a client from it, None where it does not."""
    match engine.status:
        case Status.VERIFIED:
            return None
        case Status.PENDING if allow_pending:
            return None
        case Status.PENDING:
            return f"pending: {engine.reason}; --allow-pending takes it all the same"
        case Status.WITHDRAWN:
            return f"withdrawn: {engine.reason}"
        case _:
            assert_never(engine.status)


def fit(engine: EngineEntry, machine: Machine) -> tuple[Rank, str | None]:
    """Says how well an engine fits a machine, whatever its status.

    Returns:
        Its rank, and why it does not fit, None where it does.
    """
    needed = engine.toolchain
    # What this version does not know fits no machine, and is no error: others may fit.
    name = title_of(needed.kind)
    archs = _archs(engine)
    here = [machine.archs.index(arch) for arch in archs if arch in machine.archs]
    if not here:
        return _NO_RANK, f"needs {' or '.join(archs)}; this machine has {machine.archs[0]}"
    installed = [found for found in machine.toolchains if found.kind == needed.kind]
    if not installed:
        return _NO_RANK, f"needs {name} {needed.version}, which is not installed"
    reasons = [_mismatch(needed, found, name) for found in installed]
    if None not in reasons:
        return _NO_RANK, reasons[0]
    if least := _driver_needed(engine, archs, machine):
        return _NO_RANK, (
            f"needs NVIDIA driver {least} or later for CUDA {needed.cuda}; {machine.driver} is "
            "installed"
        )
    if isinstance(engine.precision, Unknown):
        return _NO_RANK, f"is in {engine.precision}, which this version does not know: upgrade it"
    exact = any(found.version == needed.version for found in installed)
    return (
        min(here),
        preference_of(needed.kind),
        len(archs) - 1,
        0 if exact else 1,
        PRECISION_FACTS[engine.precision].preference,
    ), None


def why(engine: EngineEntry, machine: Machine) -> str:
    """Says what was picked and why, in one line: ``cpu-ort1.32-fp32 (verified): ...``."""
    toolchain = engine.toolchain
    name = title_of(toolchain.kind)
    status = f"{engine.status}{', DRY RUN (seeded weights)' if engine.dry_run else ''}"
    what = f"{', '.join(engine.targets)} ({status})"
    rank, why_not = fit(engine, machine)
    if why_not is not None:
        return f"{what}: asked for by name; it {why_not}"
    others = len(_archs(engine)) - 1
    exact = f"{name} {toolchain.version} is installed exactly"
    if rank[3]:
        exact = f"the {name} that is installed reads what {toolchain.version} made"
    alone = f"made for {machine.archs[rank[0]]}" + (f" and {others} more" if others else "")
    return f"{what}: {alone}, {exact}"


def _mismatch(needed: Toolchain, found: Toolchain, name: str) -> str | None:
    if (found.os, found.machine) != (needed.os, needed.machine):
        return f"made for {needed.os} {needed.machine}"
    if found.cuda != needed.cuda:
        return f"needs {name} for CUDA {needed.cuda}; that for {found.cuda} is installed"
    # TensorRT engines load only in the build that made them; ONNX Runtime reads any older model.
    newer_reads_older = _reads_older(needed.kind) and _digits(found.version) >= _digits(
        needed.version
    )
    if found.version != needed.version and not newer_reads_older:
        return f"needs {name} {needed.version}; {found.version} is installed"
    return None


def _reads_older(runtime: Runtime | Unknown) -> bool:
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].reads_older


def _driver_needed(engine: EngineEntry, archs: list[str], machine: Machine) -> int | None:
    """Returns the oldest driver that runs an engine here, if this machine's is older than that."""
    major = (machine.driver or "").partition(".")[0]
    line = target_table().line.get(str(engine.toolchain.line))
    here = next((arch for arch in machine.archs if arch in archs), None)
    if line is None or here is None or not major.isdecimal():
        return None
    cells = [cell for cell in line.cells if here in cell.archs]
    drivers = cells[0].driver or line.driver if cells else {}
    least = drivers.get(engine.toolchain.cuda or 0)
    return least if least is not None and int(major) < least else None


def _why_none(near: list[EngineEntry], machine: Machine) -> str:
    """Says what the engines that were asked for need, what is here, and which is the closest."""
    if not near:
        return ":"
    closest = min(near, key=lambda engine: _distance(engine, machine))
    needs = " or ".join(dict.fromkeys(_needs(engine) for engine in near))
    return f": needs {needs}; you have {_has(machine)}; closest: {', '.join(closest.targets)}"


def _what_to_do(
    model: str,
    near: list[EngineEntry],
    machine: Machine,
    target: str | None,
    precision: str | None,
) -> str:
    """Says which runtime to install where that would do, and how to build an engine."""
    arch = arch_of(target) if target else machine.archs[0]
    build = f"to build one: make zoo MODELS={model} GPU={arch}"
    if precision:
        build += f" PRECISION={precision}"
    for engine in sorted(near, key=lambda one: _distance(one, machine)):
        toolchain = engine.toolchain
        least = _driver_needed(engine, _archs(engine), machine)
        if least and toolchain in machine.toolchains:
            return f"install NVIDIA driver {least} or later; or {build}"
        as_needed = Machine(archs=machine.archs, toolchains=(toolchain,))
        system = (toolchain.os, toolchain.machine)
        for_here = all((one.os, one.machine) == system for one in machine.toolchains)
        if for_here and fit(engine, as_needed)[1] is None:
            if isinstance(toolchain.kind, Unknown):
                return build
            return f"install {title_of(toolchain.kind)} {toolchain.version}; or {build}"
    return build


def _needs(engine: EngineEntry) -> str:
    """What an engine needs: ``sm86 with TensorRT 11.4``."""
    return f"{'/'.join(_archs(engine))} with {engine.toolchain.line.title}"


def _has(machine: Machine) -> str:
    """What a machine has: ``sm89 with TensorRT 10.16, ONNX Runtime 1.32``."""
    titles = ", ".join(found.line.title for found in machine.toolchains) or "no runtime"
    driver = f", driver {machine.driver}" if machine.driver else ""
    return f"{machine.archs[0]} with {titles}{driver}"


def _distance(engine: EngineEntry, machine: Machine) -> tuple[bool, bool, int, int]:
    """How far an engine is from running here: the architecture counts before the runtime."""
    archs = [machine.archs.index(arch) for arch in _archs(engine) if arch in machine.archs]
    kinds = {found.kind for found in machine.toolchains}
    kind = engine.toolchain.kind
    return not archs, kind not in kinds, min(archs, default=0), preference_of(kind)


def _archs(engine: EngineEntry) -> list[str]:
    return list(dict.fromkeys(arch_of(label) for label in engine.targets))


def _digits(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
