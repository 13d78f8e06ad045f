"""Lists the engines a request wants and what each is built from. Pure functions of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from builders.backends.base import Options
from builders.jobs.messages import VerificationSpec
from builders.recipe import export_form
from builders.recipe.export_form import Form
from zoo.schema.keys import BuildInputs, VerificationInputs
from zoo.schema.manifest import Batches, BatchRange, Manifest
from zoo.schema.records import ExportRecord
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import (
    Arch,
    Precision,
    RuntimeLine,
    Target,
    Toolchain,
    label_of,
    refusal,
)
from zoo.util.errors import TargetError

_ELEMENTS = 2**31 - 1
"""TensorRT does not run a tensor of 2^31 elements or more."""

_GPU_ACTIVATIONS, _CPU_ACTIVATIONS = 16 * 2**30, 3 * 2**28
"""Bytes for activations: a layer reads and writes, so twice the largest tensor in fp32."""

_OTHER_BATCHES = (3, 64)
"""Also verified: batch sizes that nothing was tuned for. The second is timed as well."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An engine that a request wants, whether or not it exists.

    Attributes:
        archs: Architectures that the engine serves.
        toolchain: The toolchain that builds it.
        precision: Its precision.
        mixed: Whether some of its operators run in a higher precision.
    """

    archs: tuple[Arch, ...]
    toolchain: Toolchain
    precision: Precision
    mixed: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.archs, self.toolchain, self.precision, self.mixed))

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The targets that it serves."""
        line = self.toolchain.line
        return tuple(Target(arch, line, self.precision, self.mixed) for arch in self.archs)

    @cached_property
    def label(self) -> str:
        """The targets in one label, ``sm80+sm86-rtx1.7-fp16``."""
        return str(label_of(self.archs, self.toolchain.line, self.precision, mixed=self.mixed))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of its architectures."""
        return tuple(arch.name for arch in self.archs)

    @cached_property
    def cells(self) -> frozenset[str]:
        """The labels of its targets, whether it is mixed or not."""
        return frozenset(target.label.cell for target in self.targets)

    @cached_property
    def form(self) -> Form:
        """The form of the ONNX that is tried first."""
        return Form.for_line(self.toolchain.line, self.precision)

    @cached_property
    def as_mixed(self) -> Wanted:
        """The same engine, some of whose operators run in a higher precision."""
        return replace(self, mixed=True)


def check_request(
    lines: Mapping[Arch, RuntimeLine], precisions: Sequence[Precision], family: str = ""
) -> None:
    """Checks that at least one target supports each requested precision.

    Args:
        lines: The runtime for each architecture.
        precisions: The value of ``PRECISION=``.
        family: The requested model's family; empty to check for any model.

    Raises:
        TargetError: No target supports one of them; says why and what is supported.
    """
    for precision in precisions:
        targets = [Target(arch, line, precision) for arch, line in lines.items()]
        reasons = [reason for target in targets if (reason := refusal(target, family))]
        if len(reasons) == len(targets):
            raise TargetError("; ".join(dict.fromkeys(reasons)))


def wanted_engines(
    manifest: Manifest,
    toolchains: dict[Arch, Toolchain],
    precisions: Sequence[Precision] | None,
) -> list[Wanted]:
    """Returns the engines that are wanted of a model.

    Args:
        manifest: The model.
        toolchains: The toolchain for each requested architecture.
        precisions: The value of ``PRECISION=``; None for all of the manifest that a
            target supports.
    """
    precisions = tuple(precisions or manifest.precisions)
    return list(_wanted(manifest.family, tuple(toolchains.items()), precisions))


@lru_cache(maxsize=1024)  # models of a family share them, and what is derived from them
def _wanted(
    family: str,
    toolchains: tuple[tuple[Arch, Toolchain], ...],
    precisions: tuple[Precision, ...],
) -> tuple[Wanted, ...]:
    engines = (
        _engine(archs, toolchain, precision)
        for archs, toolchain in _share(dict(toolchains))
        for precision in precisions
    )
    return tuple(
        engine
        for engine in engines
        if not any(refusal(target, family) for target in engine.targets)
    )


@lru_cache(maxsize=4096)
def _engine(archs: tuple[Arch, ...], toolchain: Toolchain, precision: Precision) -> Wanted:
    return Wanted(archs=archs, toolchain=toolchain, precision=precision)


def _share(toolchains: dict[Arch, Toolchain]) -> list[tuple[tuple[Arch, ...], Toolchain]]:
    """Groups architectures that one engine can serve.

    A TensorRT-RTX engine serves several architectures at almost no cost in size, except Turing: the
    code for sm75 alone is larger than that for all later architectures together.
    """
    groups: list[tuple[list[Arch], Toolchain]] = []
    for arch in sorted(toolchains):
        toolchain = toolchains[arch]
        for members, shared in groups:
            portable = is_portable(toolchain.kind) and shared == toolchain
            if portable and "sm75" not in {arch.name, members[0].name}:
                members.append(arch)
                break
        else:
            groups.append(([arch], toolchain))
    return [(tuple(members), toolchain) for members, toolchain in groups]


def build_inputs(
    manifest: Manifest, wanted: Wanted, export: ExportRecord, options: Options
) -> BuildInputs:
    """Returns everything that determines an engine."""
    is_cpu = wanted.archs[0].is_cpu
    portable = is_portable(wanted.toolchain.kind)
    return BuildInputs(
        model=manifest.id,
        onnx=export.onnx.sha256,
        preprocess=manifest.preprocess.plain,
        archs=wanted.names,
        precision=wanted.precision,
        toolchain=wanted.toolchain,
        profiles=profiles_of(manifest.batch, export.largest_tensor, is_cpu, portable),
        options=options.model_dump(mode="json"),
    )


@lru_cache(maxsize=1024)
def profiles_of(
    batches: Batches, largest_tensor: int, is_cpu: bool, portable: bool
) -> tuple[BatchRange, ...]:
    """Returns an engine's batch ranges, an optimisation profile each, smallest first.

    Args:
        batches: The manifest's.
        largest_tensor: Elements per image of the largest activation.
        is_cpu: Whether it runs on the CPU.
        portable: Whether it runs on several architectures.
    """
    ranges = (batches.cpu,) if is_cpu else batches.gpu
    if not is_cpu and portable:
        # It compiles kernels for shapes at run time; a second profile only enlarges the engine.
        ranges = (ranges[-1].model_copy(update={"min": ranges[0].min}),)
    largest = largest_batch(largest_tensor, on_cpu=is_cpu)
    return tuple(batch.limited(largest) for batch in ranges if batch.min <= largest)


def largest_batch(elements_per_image: int, *, on_cpu: bool = False) -> int:
    """Returns the largest batch that fits the element and memory budgets, a power of two.

    Args:
        elements_per_image: Elements of the largest activation.
        on_cpu: Whether the engine runs on a CPU, which has less memory to spare.
    """
    budget = _CPU_ACTIVATIONS if on_cpu else _GPU_ACTIVATIONS
    by_elements = _ELEMENTS // max(1, elements_per_image)
    by_memory = budget // max(1, 2 * 4 * elements_per_image)
    most = max(1, min(by_elements, by_memory))
    return int(2 ** (most.bit_length() - 1))


def verification_spec(
    manifest: Manifest, export: ExportRecord, precision: Precision, profiles: Sequence[BatchRange]
) -> VerificationSpec:
    """Returns how to verify an engine: at the min, opt and max batch of each profile."""
    tuned = {size for profile in profiles for size in (profile.min, profile.opt, profile.max)}
    odd, middle = (
        {n} if any(n in profile for profile in profiles) else set() for n in _OTHER_BATCHES
    )
    return VerificationSpec(
        golden=export.golden,
        preprocess=manifest.preprocess.plain,
        tolerance=manifest.kept_by(precision),
        batches=tuple(sorted(tuned | odd | middle)),
        benchmark=tuple(sorted(tuned | middle)),
        reference=manifest,
    )


def verification_inputs(engine: str, spec: VerificationSpec) -> VerificationInputs:
    """Returns everything that determines a verdict."""
    return VerificationInputs(
        engine=engine,
        golden=spec.golden.sha256,
        tolerance=spec.tolerance.model_dump(mode="json"),
        batches=spec.batches,
        method=export_form.VERIFICATION_METHOD,
    )
