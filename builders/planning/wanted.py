"""Plan: which engines are wanted, and what they are built from. Pure functions of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builders.jobs.messages import Prove
from zoo.schema.keys import BuildInputs, VerificationInputs
from zoo.schema.manifest import BatchRange, Manifest
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
"""Bytes for activations: twice the largest tensor in fp32 (what a layer reads and writes)."""

_OTHER_BATCHES = (3, 64)
"""Verified beside min, opt and max: batches that nothing was tuned for. The second is timed too."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One engine that is wanted, whether it exists or not.

    Attributes:
        archs: Architectures that the one engine serves.
        toolchain: What builds it.
        precision: Of the engine.
        mixed: Whether some of its operators stay in higher precision.
    """

    archs: tuple[Arch, ...]
    toolchain: Toolchain
    precision: Precision
    mixed: bool = False

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that it serves."""
        line = self.toolchain.line
        return tuple(Target(arch, line, self.precision, self.mixed) for arch in self.archs)

    @property
    def label(self) -> str:
        """The targets as one word, ``sm80+sm86-rtx1.7-fp16``."""
        return str(label_of(self.archs, self.toolchain.line, self.precision, mixed=self.mixed))


def check_request(
    lines: Mapping[Arch, RuntimeLine], precisions: Sequence[Precision], family: str = ""
) -> None:
    """Refuses a precision that none of the targets takes, before anything is done.

    Args:
        lines: The runtime for each architecture.
        precisions: What ``PRECISION=`` says.
        family: Of the model that is asked for; empty for whether any model has it.

    Raises:
        TargetError: Says why, and what the target takes.
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
    """Lists the engines of a model.

    Args:
        manifest: The model.
        toolchains: What builds for each architecture that is asked for.
        precisions: What ``PRECISION=`` says; None for all of the manifest that a target takes.
    """
    wanted = []
    for archs, toolchain in _share(toolchains):
        for precision in precisions or tuple(manifest.precisions):
            engine = Wanted(archs=archs, toolchain=toolchain, precision=precision)
            if not any(refusal(target, manifest.family) for target in engine.targets):
                wanted.append(engine)
    return wanted


def _share(toolchains: dict[Arch, Toolchain]) -> list[tuple[tuple[Arch, ...], Toolchain]]:
    """Groups architectures that one engine can serve.

    A TensorRT-RTX engine serves several at almost no cost in size, Turing apart: its code for
    sm75 alone is larger than that for all later ones together.
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
    manifest: Manifest, wanted: Wanted, export: ExportRecord, options: dict[str, Any]
) -> BuildInputs:
    """Collects what decides an engine."""
    is_cpu = wanted.archs[0].is_cpu
    asked = (manifest.batch.cpu,) if is_cpu else manifest.batch.gpu
    if not is_cpu and is_portable(wanted.toolchain.kind):
        # It fits kernels to shapes when it runs; a second profile only makes the engine larger.
        asked = (asked[-1].model_copy(update={"min": asked[0].min}),)
    largest = largest_batch(export.largest_tensor, on_cpu=is_cpu)
    return BuildInputs(
        model=manifest.id,
        onnx=export.onnx.sha256,
        preprocess=manifest.preprocess.plain,
        archs=tuple(arch.name for arch in wanted.archs),
        precision=wanted.precision,
        toolchain=wanted.toolchain,
        profiles=tuple(one.limited(largest) for one in asked if one.min <= largest),
        options=options,
    )


def largest_batch(elements_per_image: int, *, on_cpu: bool = False) -> int:
    """Returns the largest batch that fits the element and memory budgets, a power of two.

    Args:
        elements_per_image: Of the largest activation.
        on_cpu: Whether the engine runs on a CPU, beside everything else.
    """
    budget = _CPU_ACTIVATIONS if on_cpu else _GPU_ACTIVATIONS
    by_elements = _ELEMENTS // max(1, elements_per_image)
    by_memory = budget // max(1, 2 * 4 * elements_per_image)
    most = max(1, min(by_elements, by_memory))
    return int(2 ** (most.bit_length() - 1))


def proof(
    manifest: Manifest, export: ExportRecord, precision: Precision, profiles: Sequence[BatchRange]
) -> Prove:
    """Says how an engine is to be proven: at smallest, best and largest batch of each profile."""
    tuned = {size for one in profiles for size in (one.min, one.opt, one.max)}
    odd, middle = ({n} if any(n in one for one in profiles) else set() for n in _OTHER_BATCHES)
    return Prove(
        golden=export.golden,
        preprocess=manifest.preprocess.plain,
        tolerance=manifest.kept_by(precision),
        batches=tuple(sorted(tuned | odd | middle)),
        benchmark=tuple(sorted(tuned | middle)),
    )


def verification_inputs(engine: str, prove: Prove, method: str) -> VerificationInputs:
    """Collects what decides a verdict."""
    return VerificationInputs(
        engine=engine,
        golden=prove.golden.sha256,
        tolerance=prove.tolerance.model_dump(mode="json"),
        batches=prove.batches,
        method=method,
    )
