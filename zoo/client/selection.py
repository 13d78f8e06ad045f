"""Engine selection: the best published engine for a machine, or the reasons why none fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import assert_never

from zoo.client.recommendation import speed_against
from zoo.schema.build_hint import build_hint, no_precision_hint
from zoo.schema.closed import Unknown
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.precisions import PRECISION_FACTS, Precision
from zoo.schema.records import Status
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, preference_of, title_of
from zoo.schema.targets import Toolchain, arch_of
from zoo.schema.targets_table import target_table
from zoo.util.errors import SelectionError
from zoo.util.names import perhaps

Rank = tuple[int, int, int, int, int]
"""Sort key of an engine by the order that :func:`select` documents; lower is better."""

_NO_RANK: Rank = (0, 0, 0, 0, 0)

_ALLOW_SEEDED = "add --allow-seeded (in Python, allow_seeded=True)"
_ALLOW_PENDING = "add --allow-pending (in Python, allow_pending=True)"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and runtimes of a machine.

    Attributes:
        archs: Names of its architectures including ``cpu``, best first.
        toolchains: Installed runtimes.
        driver: Version of the NVIDIA driver, ``580.65.06``; None if there is none or it is unknown.
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
    """Selects the best engine for a machine.

    A target given by label is selected whether or not this machine can run it, so that engines
    can be downloaded for other machines. Otherwise engines are ordered by

    1. architecture, in the machine's order: GPU before CPU, if the driver is new enough for the
       runtime's CUDA version;
    2. runtime: TensorRT, whose version, OS and CUDA must match exactly; then TensorRT-RTX, whose
       engines are portable and compiled on load; then ONNX Runtime;
    3. number of architectures, so that an engine for this one alone comes first;
    4. toolchain: an exact match before one that reads older engines (ONNX Runtime does);
    5. precision: fp16 and bf16 before fp32, unless their measured speeds, with intervals, say that
       another one of the three is faster. int8 comes last because it is less accurate; request it
       explicitly.

    Args:
        model: The model's index.
        machine: Machine to select for.
        target: Target label to select.
        precision: Precision to select.
        allow_pending: Accept engines that have not been verified yet.
        allow_seeded: Accept engines from dry runs, whose weights are seeded, not trained.

    Raises:
        SelectionError: No engine fits; the message gives the reason for each.
    """
    labels = sorted(label for engine in model.engines for label in engine.targets)
    if target is not None and target not in labels:
        raise SelectionError(
            f"{model.model}: no engine is published for {target}.{perhaps(target, labels)}",
            hint=f"published targets: {', '.join(labels) or 'none'}",
        )
    reasons: list[str] = []
    option_would_help = False  # --allow-pending or --allow-seeded
    fitting: list[tuple[Rank, EngineEntry]] = []
    for engine in model.engines:
        if target is not None and target not in engine.targets:
            continue
        if precision is not None and precision != engine.precision:
            reasons.append(f"{'+'.join(engine.targets)}: not {precision}")
            continue
        rank, why_not = (_NO_RANK, None) if target else fit(engine, machine)
        fits = why_not is None
        if why_not is None:
            why_not = _held_back(engine, allow_pending=allow_pending)
        if why_not is None and engine.dry_run and not allow_seeded:
            why_not = f"dry run with seeded weights; to use it anyway, {_ALLOW_SEEDED}"
        if why_not is None:
            fitting.append((rank, engine))
        else:
            reasons.append(f"{'+'.join(engine.targets)}: {why_not}")
            option_would_help |= fits and engine.status != Status.WITHDRAWN
    if fitting:
        return _faster(fitting, min(fitting, key=_order))[1]
    near = [
        engine
        for engine in model.engines
        if engine.status != Status.WITHDRAWN
        and target in (None, *engine.targets)
        and precision in (None, engine.precision)
    ]
    kind = f" {precision}" if precision else ""
    hint = None if option_would_help else _remedy(model, near, machine, target, precision)
    raise SelectionError(
        f"{model.model}: no suitable{kind} engine{_requirements(near, machine)}"
        + "\n    ".join(["", *(reasons or ["nothing has been published"])]),
        hint=hint,
    )


def _order(fitting: tuple[Rank, EngineEntry]) -> tuple[bool, Rank]:
    """Returns the sort key of an engine that fits: superseded ones come after all others."""
    rank, engine = fitting
    return engine.superseded is not None, rank


def _faster(
    fitting: Iterable[tuple[Rank, EngineEntry]], best: tuple[Rank, EngineEntry]
) -> tuple[Rank, EngineEntry]:
    """Returns an engine that differs in its precision alone and is known to be faster, else best.

    Speeds within noise, or that were not measured, change nothing; nor do those of precisions that
    come after fp32, which are less accurate.
    """
    for other in sorted(fitting, key=_order):
        superseded, rank = _order(other)
        if (superseded, rank[:-1]) != (_order(best)[0], best[0][:-1]) or rank[-1] > _FP32:
            continue
        speed = speed_against(other[1], best[1]) if best[0][-1] <= _FP32 else None
        if speed is not None and speed.interval[0] > 1:
            best = other
    return best


_FP32 = PRECISION_FACTS[Precision.FP32].preference


def _held_back(engine: EngineEntry, *, allow_pending: bool) -> str | None:
    """Returns why an engine can't be used because of its status, or None if it can."""
    match engine.status:
        case Status.VERIFIED:
            return None
        case Status.PENDING if allow_pending:
            return None
        case Status.PENDING:
            return f"pending: {engine.reason}; to use it anyway, {_ALLOW_PENDING}"
        case Status.WITHDRAWN:
            return f"withdrawn: {engine.reason}"
        case _:
            assert_never(engine.status)


def fit(engine: EngineEntry, machine: Machine) -> tuple[Rank, str | None]:
    """Returns how well an engine fits a machine, regardless of the engine's status.

    Returns:
        The engine's rank, and the reason why it does not fit or None if it does.
    """
    needed = engine.toolchain
    # A runtime or precision unknown to this version is no error: other engines may fit.
    name = title_of(needed.kind)
    archs = _archs(engine)
    positions = [machine.archs.index(arch) for arch in archs if arch in machine.archs]
    if not positions:
        return _NO_RANK, f"requires {' or '.join(archs)}; this machine has {machine.archs[0]}"
    candidates = [toolchain for toolchain in machine.toolchains if toolchain.kind == needed.kind]
    if not candidates:
        return _NO_RANK, f"requires {name} {needed.version}, which is not installed"
    reasons = [_mismatch(needed, installed, name) for installed in candidates]
    if None not in reasons:
        return _NO_RANK, reasons[0]
    if minimum := _driver_needed(engine, archs, machine):
        return _NO_RANK, (
            f"requires NVIDIA driver {minimum} or later for CUDA {needed.cuda}; {machine.driver} "
            "is installed"
        )
    if isinstance(engine.precision, Unknown):
        return _NO_RANK, f"has unknown precision {engine.precision}; upgrade this package to use it"
    exact = any(installed.version == needed.version for installed in candidates)
    return (
        min(positions),
        preference_of(needed.kind),
        len(archs) - 1,
        0 if exact else 1,
        PRECISION_FACTS[engine.precision].preference,
    ), None


def why(engine: EngineEntry, machine: Machine, model: ModelIndex) -> str:
    """Returns a line about a selected engine and why: ``cpu-ort1.32-fp32 (verified): ...``.

    Args:
        engine: The engine.
        machine: The machine it was selected for.
        model: The index it was selected from.
    """
    toolchain = engine.toolchain
    name = title_of(toolchain.kind)
    status = f"{engine.status}{', DRY RUN (seeded weights)' if engine.dry_run else ''}"
    title = f"{', '.join(engine.targets)} ({status})"
    rank, why_not = fit(engine, machine)
    if why_not is not None:
        return f"{title}: selected by label, though it {why_not}"
    others = len(_archs(engine)) - 1
    match = f"{name} {toolchain.version} is installed"
    if rank[3]:
        match = f"the installed {name} reads engines built with {toolchain.version}"
    archs = machine.archs[rank[0]] + (f" and {others} other architectures" if others else "")
    faster = _faster_than(engine, rank, machine, model)
    return f"{title}: built for {archs}, {match}{faster}"


def _faster_than(engine: EngineEntry, rank: Rank, machine: Machine, model: ModelIndex) -> str:
    """Returns the speeds that had an engine selected instead of a precision that comes first."""
    speeds = {}
    for other in model.current:
        other_rank, why_not = fit(other, machine)
        is_first = why_not is None and other_rank[:-1] == rank[:-1] and other_rank < rank
        if is_first and (speed := speed_against(engine, other)) and speed.interval[0] > 1:
            low, high = speed.interval
            speeds[other.precision] = (
                f"measured {speed.ratio:.2f} times as fast as {other.precision} "
                f"({low:.2f} to {high:.2f}, batch {speed.batch})"
            )
    return "".join(f", {text}" for text in speeds.values())


def _mismatch(needed: Toolchain, installed: Toolchain, name: str) -> str | None:
    if (installed.os, installed.machine) != (needed.os, needed.machine):
        return f"requires {needed.os} {needed.machine}"
    if installed.cuda != needed.cuda:
        return f"requires {name} for CUDA {needed.cuda}; CUDA {installed.cuda} is installed"
    # TensorRT loads only engines of its own build; ONNX Runtime reads models of older versions.
    newer_reads_older = _reads_older(needed.kind) and _digits(installed.version) >= _digits(
        needed.version
    )
    if installed.version != needed.version and not newer_reads_older:
        return f"requires {name} {needed.version}; {installed.version} is installed"
    return None


def _reads_older(runtime: Runtime | Unknown) -> bool:
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].reads_older


def _driver_needed(engine: EngineEntry, archs: list[str], machine: Machine) -> int | None:
    """Returns the minimum driver version of an engine if this machine's driver is older."""
    major = (machine.driver or "").partition(".")[0]
    line = target_table().line.get(str(engine.toolchain.line))
    arch = next((arch for arch in machine.archs if arch in archs), None)
    if line is None or arch is None or not major.isdecimal():
        return None
    cells = [cell for cell in line.cells if arch in cell.archs]
    drivers = cells[0].driver or line.driver if cells else {}
    minimum = drivers.get(engine.toolchain.cuda or 0)
    return minimum if minimum is not None and int(major) < minimum else None


def _requirements(near: list[EngineEntry], machine: Machine) -> str:
    """Describes what engines require, what the machine has, and the closest engine."""
    if not near:
        return ":"
    closest = min(near, key=lambda engine: _distance(engine, machine))
    needed = " or ".join(dict.fromkeys(_engine_title(engine) for engine in near))
    return (
        f": requires {needed}; this machine has {_machine_title(machine)}; closest: "
        f"{', '.join(closest.targets)}"
    )


def _remedy(
    model: ModelIndex,
    near: list[EngineEntry],
    machine: Machine,
    target: str | None,
    precision: str | None,
) -> str:
    """Suggests a driver or runtime to install if that suffices, and how to build an engine."""
    build = _build_or_why_not(model, machine, target, precision)
    for engine in sorted(near, key=lambda engine: _distance(engine, machine)):
        toolchain = engine.toolchain
        minimum = _driver_needed(engine, _archs(engine), machine)
        if minimum and toolchain in machine.toolchains:
            return f"install NVIDIA driver {minimum} or later; or {build}"
        with_toolchain = Machine(archs=machine.archs, toolchains=(toolchain,))
        system = (toolchain.os, toolchain.machine)
        same_system = all(
            (installed.os, installed.machine) == system for installed in machine.toolchains
        )
        if same_system and fit(engine, with_toolchain)[1] is None:
            if isinstance(toolchain.kind, Unknown):
                return build
            return f"install {title_of(toolchain.kind)} {toolchain.version}; or {build}"
    return build


def _build_or_why_not(
    model: ModelIndex, machine: Machine, target: str | None, precision: str | None
) -> str:
    """Returns how to build an engine, or what to do where the farm would refuse to."""
    arch = arch_of(target) if target else machine.archs[0]
    withdrawn = [engine for engine in model.engines if engine.status is Status.WITHDRAWN]
    held_back = [
        engine
        for engine in withdrawn
        if target in (None, *engine.targets)
        and precision in (None, engine.precision)
        and arch in _archs(engine)
    ]
    failed = [
        cell
        for cell in model.disabled
        if precision in (None, cell.precision) and arch in map(arch_of, cell.targets)
    ]
    if held_back or (failed and precision):
        return (
            f"zoo show {model.model} lists its other engines; the farm builds this one again only "
            "when its maintainers decide so"
        )
    hint = build_hint(model.model, arch=arch, precision=precision, family=model.family)
    if hint is not None:
        return hint
    if precision:
        usable = [e for e in model.engines if arch in _archs(e) and e not in withdrawn]
        published = {engine.precision for engine in usable}
        return no_precision_hint(model.model, arch, precision, published)
    return f"zoo show {model.model} lists its engines; the farm does not know {arch}"


def _engine_title(engine: EngineEntry) -> str:
    """Returns an engine's architectures and runtime: ``sm86 with TensorRT 11.4``."""
    return f"{'/'.join(_archs(engine))} with {engine.toolchain.line.title}"


def _machine_title(machine: Machine) -> str:
    """Returns a machine's hardware and runtimes: ``sm89 with TensorRT 10.16, driver 580``."""
    titles = ", ".join(toolchain.line.title for toolchain in machine.toolchains) or "no runtime"
    driver = f", driver {machine.driver}" if machine.driver else ""
    return f"{machine.archs[0]} with {titles}{driver}"


def _distance(engine: EngineEntry, machine: Machine) -> tuple[bool, bool, int, int]:
    """Returns how far an engine is from running here; architecture counts before runtime."""
    archs = [machine.archs.index(arch) for arch in _archs(engine) if arch in machine.archs]
    kinds = {found.kind for found in machine.toolchains}
    kind = engine.toolchain.kind
    return not archs, kind not in kinds, min(archs, default=0), preference_of(kind)


def _archs(engine: EngineEntry) -> list[str]:
    return list(dict.fromkeys(arch_of(label) for label in engine.targets))


def _digits(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
