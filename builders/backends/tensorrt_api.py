"""What differs between TensorRT 8.6, 10.x and 11.x: all of it is here.

Decided by the version, or by whether a name exists; never by the integer value of a flag, for
those shifted from release to release. That a flag of a precision exists says nothing: 11 has none
and builds fp32 from an untyped network without a word, so networks are strongly typed wherever
that exists, and a finished engine is asked what it runs in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import assert_never

from zoo.schema.targets import Precision, Toolchain
from zoo.util.errors import UsageError

HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]

_FIRST_STRONGLY_TYPED = (9, 0)
_FIRST_AMPERE_PLUS = (8, 6)
_FIRST_SAME_COMPUTE_CAPABILITY = (10, 9)


def version_of(toolchain: Toolchain) -> tuple[int, int]:
    """Returns major and minor of a toolchain's version."""
    major, minor, *_ = toolchain.version.split(".")
    return int(major), int(minor)


def is_strongly_typed(toolchain: Toolchain) -> bool:
    """Whether this version has strongly typed networks, so that the types of the ONNX are law."""
    return version_of(toolchain) >= _FIRST_STRONGLY_TYPED


def default_compatibility(toolchain: Toolchain) -> HardwareCompatibility:
    """Returns the level that an engine for a whole architecture should have.

    ``same_compute_capability`` where there is one: without it an engine is tuned to the very card,
    and TensorRT warns on another card of the architecture.
    """
    if version_of(toolchain) >= _FIRST_SAME_COMPUTE_CAPABILITY:
        return "same_compute_capability"
    return "none"


def check_compatibility(toolchain: Toolchain, level: HardwareCompatibility) -> None:
    """Refuses a level of hardware compatibility that a version does not have.

    Raises:
        UsageError: Says from which version it exists.
    """
    first = {
        "none": (0, 0),
        "ampere_plus": _FIRST_AMPERE_PLUS,
        "same_compute_capability": _FIRST_SAME_COMPUTE_CAPABILITY,
    }[level]
    if version_of(toolchain) < first:
        raise UsageError(
            f"TensorRT {toolchain.version} has no hardware_compatibility={level}: it came with "
            f"{first[0]}.{first[1]}",
            hint=f"take hardware_compatibility={default_compatibility(toolchain)}",
        )


@dataclass(frozen=True, kw_only=True)
class ConfigArguments:
    """How Polygraphy's ``CreateConfig`` is called, and what is set on the config afterwards.

    Attributes:
        arguments: For ``CreateConfig``.
        preview_features: Members of ``PreviewFeature`` to switch on, the others left as they are.
    """

    arguments: dict[str, Any]
    preview_features: tuple[Any, ...]


def config_arguments(
    trt: Any, precision: Precision, options: dict[str, Any], strongly_typed: bool
) -> ConfigArguments:
    """Says how a builder is configured with the names that a version has.

    Args:
        trt: The ``tensorrt`` module.
        precision: Of the engine.
        options: The build key's builder options.
        strongly_typed: Whether the network is.
    """
    arguments: dict[str, Any] = {
        "tf32": False,
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: int(options["workspace_gib"] * 2**30)},
        "builder_optimization_level": options["optimization_level"],
        "version_compatible": options["version_compatible"],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if not strongly_typed:
        arguments |= _type_flags(precision)
        if precision == Precision.FP16 and options["precision_constraints"] != "none":
            arguments["precision_constraints"] = options["precision_constraints"]
    if options["hardware_compatibility"] != "none":
        name = options["hardware_compatibility"].upper()
        arguments["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, name)
    if options["tactic_sources"] == "own":
        # Neither cuBLAS nor cuDNN: the engine then needs TensorRT alone where it runs.
        names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        sources = trt.TacticSource.__members__
        arguments["tactic_sources"] = [sources[name] for name in names if name in sources]
    # 8.6 lets contexts share a profile only when asked; later versions always do.
    features = trt.PreviewFeature.__members__
    shared = tuple(features[name] for name in ("PROFILE_SHARING_0806",) if name in features)
    return ConfigArguments(arguments=arguments, preview_features=shared)


def _type_flags(precision: Precision) -> Mapping[str, bool]:
    """Returns the types that a network without strong typing may compute in."""
    match precision:
        case Precision.FP32 | Precision.BF16:  # no version without strong typing has a bf16 flag
            return {}
        case Precision.FP16:
            return {"fp16": True}
        case Precision.INT8:
            # Around Q/DQ the builder chooses: fp16 where that is faster for what is not quantised.
            return {"int8": True, "fp16": True}
        case _:
            assert_never(precision)
