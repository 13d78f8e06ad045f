"""Selection: which published engine fits a machine best, or why none does. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import SelectionError
from zoo.index import EngineEntry, ModelIndex
from zoo.names import perhaps
from zoo.target import RUNTIME_NAMES, Toolchain

_PRECISIONS = {"fp16": 0, "bf16": 1, "fp32": 2, "int8": 3}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine can run.

    Attributes:
        archs: Names of its architectures, ``cpu`` included, best first.
        toolchains: Runtimes that are installed.
    """

    archs: tuple[str, ...]
    toolchains: tuple[Toolchain, ...]


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
    another one). Else the machine's architectures in their order; among engines of one, the exact
    toolchain before another build of the same line; then fp16 and bf16, which are faster, before
    fp32. int8 comes last: it costs the features something, and is taken when it is asked for.

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
    fitting: list[tuple[tuple[int, int, int], EngineEntry]] = []
    for engine in model.engines:
        if target is not None and target not in engine.targets:
            continue
        if precision is not None and precision != engine.precision:
            reasons.append(f"{'+'.join(engine.targets)}: {precision} is asked for")
            continue
        rank, why_not = ((0, 0, 0), None) if target else fit(engine, machine)
        fits = why_not is None
        if why_not is None and engine.status == "withdrawn":
            why_not = f"withdrawn: {engine.reason}"
        if why_not is None and engine.status == "pending" and not allow_pending:
            why_not = f"pending: {engine.reason}; --allow-pending takes it all the same"
        if why_not is None and engine.dry_run and not allow_seeded:
            why_not = "a dry run with seeded weights; --allow-seeded takes it all the same"
        if why_not is None:
            fitting.append((rank, engine))
        else:
            reasons.append(f"{'+'.join(engine.targets)}: {why_not}")
            on_offer |= fits and engine.status != "withdrawn"
    if fitting:
        return min(fitting, key=lambda pair: (pair[1].superseded is not None, pair[0]))[1]
    arch = target.partition("-")[0] if target else machine.archs[0]
    raise SelectionError(
        f"{model.model}: no published engine will do:\n    "
        + "\n    ".join(reasons or ["nothing is published"]),
        hint=None if on_offer else f"to build one: make zoo MODELS={model.model} GPU={arch}",
    )


def fit(engine: EngineEntry, machine: Machine) -> tuple[tuple[int, int, int], str | None]:
    """Says how well an engine fits a machine, whatever its status.

    Returns:
        Its rank, the least being the best, and why it does not fit, None where it does.
    """
    needed = engine.toolchain
    # A runtime or architecture that this version does not know fits no machine; it is no error.
    name = RUNTIME_NAMES.get(needed.kind, needed.kind)
    archs = [label.partition("-")[0] for label in engine.targets]
    here = [machine.archs.index(arch) for arch in archs if arch in machine.archs]
    if not here:
        return (0, 0, 0), f"needs {' or '.join(archs)}; this machine has {machine.archs[0]}"
    installed = [found for found in machine.toolchains if found.kind == needed.kind]
    if not installed:
        return (0, 0, 0), f"needs {name} {needed.version}, which is not installed"
    found = installed[0]
    if (found.os, found.machine) != (needed.os, needed.machine):
        return (0, 0, 0), f"made for {needed.os} {needed.machine}"
    if found.cuda != needed.cuda:
        return (0, 0, 0), f"needs {name} for CUDA {needed.cuda}; that for {found.cuda} is installed"
    exact = found.version == needed.version
    # TensorRT engines load in the very build that made them; ONNX Runtime reads any older model.
    newer_reads_older = needed.kind == "ort" and _digits(found.version) >= _digits(needed.version)
    if not exact and not newer_reads_older:
        return (0, 0, 0), f"needs {name} {needed.version}; {found.version} is installed"
    precision_rank = _PRECISIONS.get(engine.precision, len(_PRECISIONS))
    return (min(here), 0 if exact else 1, precision_rank), None


def _digits(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
