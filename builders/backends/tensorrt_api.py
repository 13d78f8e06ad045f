"""All differences between TensorRT 8.6, 10.x and 11.x.

Code decides by version or by whether a name exists, never by the integer value of a flag, which
changes between releases. The absence of a precision flag is not an error either: TensorRT 11 has
none and silently builds fp32 from a weakly typed network. So networks are strongly typed wherever
the version supports it, and every finished engine is inspected for its precision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from pydantic import AfterValidator, Field
from typing_extensions import NotRequired

from builders.backends.base import Options
from zoo.schema.omitted import OmitsDefaults
from zoo.schema.precisions import PRECISION_FACTS
from zoo.schema.targets import Precision, Toolchain
from zoo.util.errors import UsageError

HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]

PrecisionConstraints = Literal["none", "prefer", "obey"]

_FIRST_STRONGLY_TYPED = (9, 0)
_FIRST_AMPERE_PLUS = (8, 6)
_FIRST_SAME_COMPUTE_CAPABILITY = (10, 9)
_FIRST_TACTICS = (10, 13)  # the first whose names were looked up

FREE, RECORDED = "free", "recorded"


def _known_tactics(text: str) -> str:
    if text not in (FREE, RECORDED, "locked") and not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(
            f"'{text}' is not free, recorded, locked or the SHA-256 of a stored file of tactics"
        )
    return text


class TensorRTOptions(OmitsDefaults, Options):
    """Builder options of TensorRT.

    Attributes:
        optimization_level: How long to search for tactics, 0 to 5.
        workspace_gib: Upper limit of the device memory of a tactic, GiB.
        hardware_compatibility: Other GPUs that the engine may run on.
        version_compatible: Whether later TensorRT releases of the same major version may load the
            engine; costs size and speed.
        tactic_sources: ``own`` excludes cuBLAS and cuDNN, so that the engine needs only TensorRT.
        timing_cache: Whether to reuse timings of earlier builds on the same GPU.
        strongly_typed: Whether layers run in exactly the types of the ONNX; otherwise flags allow
            its precision.
        precision_constraints: Whether the fp32 layers in the ONNX of an fp16 engine stay fp32 in
            a weakly typed network: ``prefer``, if there is a tactic, or ``obey``.
        tf32: Always off: an fp32 engine computes in fp32.
        tactics: ``recorded`` stores the tactics beside the engine; ``locked`` builds with those of
            the published engine of the same target, or fails; the digest of a stored ``tactics``
            file builds with these. Not in the JSON if ``free``.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"tactics"})

    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    workspace_gib: Annotated[float, Field(gt=0, le=1024)] = 8.0
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    tactic_sources: Literal["own", "default"] = "own"
    timing_cache: bool = True
    strongly_typed: bool = True
    precision_constraints: PrecisionConstraints = "none"
    tf32: Literal[False] = False
    tactics: Annotated[str, AfterValidator(_known_tactics)] = FREE

    @property
    def tactics_lock(self) -> str | None:
        """Digest of the tactics that the build has to keep to, None without."""
        return self.tactics if len(self.tactics) == _DIGITS else None


_DIGITS = 64


def version_of(toolchain: Toolchain) -> tuple[int, int]:
    """Returns the major and minor version of a toolchain."""
    major, minor, *_ = toolchain.version.split(".")
    return int(major), int(minor)


def is_strongly_typed(toolchain: Toolchain) -> bool:
    """Whether this version supports strongly typed networks, which run in the ONNX's types."""
    return version_of(toolchain) >= _FIRST_STRONGLY_TYPED


def default_compatibility(toolchain: Toolchain) -> HardwareCompatibility:
    """Returns the hardware compatibility level of an engine for a whole architecture.

    It is ``same_compute_capability`` if the version supports it: otherwise an engine is tuned to
    one GPU model, and TensorRT warns on other GPUs of the architecture.
    """
    if version_of(toolchain) >= _FIRST_SAME_COMPUTE_CAPABILITY:
        return "same_compute_capability"
    return "none"


def check_tactics(toolchain: Toolchain, tactics: str) -> None:
    """Checks that a version can record and lock tactics.

    Raises:
        UsageError: It can't.
    """
    if tactics != FREE and version_of(toolchain) < _FIRST_TACTICS:
        raise UsageError(
            f"builder option tactics={tactics}: TensorRT {toolchain.version} can't record or lock "
            "tactics: its timing caches can't be edited, and what they lack is no error",
            hint=f"leave it out; {_FIRST_TACTICS[0]}.{_FIRST_TACTICS[1]} and later can",
        )


def check_compatibility(toolchain: Toolchain, level: HardwareCompatibility) -> None:
    """Checks that a version supports a hardware compatibility level.

    Raises:
        UsageError: It does not; the message names the first version that does.
    """
    first = {
        "none": (0, 0),
        "ampere_plus": _FIRST_AMPERE_PLUS,
        "same_compute_capability": _FIRST_SAME_COMPUTE_CAPABILITY,
    }[level]
    if version_of(toolchain) < first:
        raise UsageError(
            f"TensorRT {toolchain.version} has no hardware_compatibility={level}, which needs "
            f"{first[0]}.{first[1]} or later",
            hint=f"use hardware_compatibility={default_compatibility(toolchain)}",
        )


class CreateConfigArguments(TypedDict):
    """Keyword arguments of Polygraphy's ``CreateConfig``.

    Attributes:
        memory_pool_limits: Member of ``MemoryPoolType`` to bytes.
        profiling_verbosity: Member of ``ProfilingVerbosity``.
        hardware_compatibility_level: Member of ``HardwareCompatibilityLevel``.
        tactic_sources: Members of ``TacticSource``.
    """

    tf32: bool
    memory_pool_limits: dict[Any, int]
    builder_optimization_level: int
    version_compatible: bool
    profiling_verbosity: Any
    fp16: NotRequired[bool]
    int8: NotRequired[bool]
    precision_constraints: NotRequired[PrecisionConstraints]
    hardware_compatibility_level: NotRequired[Any]
    tactic_sources: NotRequired[list[Any]]


@dataclass(frozen=True, kw_only=True)
class ConfigArguments:
    """How to create a builder's config.

    Attributes:
        arguments: Arguments of ``CreateConfig``.
        preview_features: Members of ``PreviewFeature`` to enable afterwards; the others keep their
            defaults.
    """

    arguments: CreateConfigArguments
    preview_features: tuple[Any, ...]


def config_arguments(trt: Any, precision: Precision, options: TensorRTOptions) -> ConfigArguments:
    """Returns how to create a builder's config, in the names of a TensorRT version.

    Args:
        trt: The ``tensorrt`` module.
        precision: The engine's precision.
        options: The builder options.
    """
    arguments: CreateConfigArguments = {
        "tf32": False,
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: int(options.workspace_gib * 2**30)},
        "builder_optimization_level": options.optimization_level,
        "version_compatible": options.version_compatible,
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if not options.strongly_typed:
        _allow_types(arguments, precision)
        if precision == Precision.FP16 and options.precision_constraints != "none":
            arguments["precision_constraints"] = options.precision_constraints
    if options.hardware_compatibility != "none":
        name = options.hardware_compatibility.upper()
        arguments["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, name)
    if options.tactic_sources == "own":
        # Neither cuBLAS nor cuDNN, so that the engine needs only TensorRT.
        names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        sources = trt.TacticSource.__members__
        arguments["tactic_sources"] = [sources[name] for name in names if name in sources]
    # In 8.6 contexts share a profile only with this feature; later versions always share.
    features = trt.PreviewFeature.__members__
    shared = tuple(features[name] for name in ("PROFILE_SHARING_0806",) if name in features)
    return ConfigArguments(arguments=arguments, preview_features=shared)


def _allow_types(arguments: CreateConfigArguments, precision: Precision) -> None:
    """Sets the types besides fp32 that a weakly typed network of a precision may run in."""
    for flag in PRECISION_FACTS[precision].flags:
        arguments[flag] = True
