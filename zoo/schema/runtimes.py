"""Runtimes: the set, and one table of what is true of each.

Versions of a runtime, and what they serve, are lines of ``zoo/schema/targets.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from zoo.schema.closed import Lenient, Unknown, complete
from zoo.util.strenum import StrEnum


class Runtime(StrEnum):
    """What runs an engine."""

    ORT = "ort"
    RTX = "rtx"
    TRT = "trt"


AnyRuntime: TypeAlias = Annotated[Runtime | Unknown, Lenient(Runtime)]
"""As a record names it, which a later version may have written."""


@dataclass(frozen=True, kw_only=True)
class RuntimeFacts:
    """What is true of a runtime.

    Attributes:
        title: What people call it.
        module: The Python module that drives it.
        packages: Packages that may have installed it, each with the CUDA major version that it is
            for, None where the name does not say.
        extra: The extra of this package that installs what a client needs.
        install: How to install it for a client, for a hint.
        session: Module of the class that runs its engines.
        backend: Module of the farm that builds its engines.
        gpu: Whether it runs on GPUs; else on the CPU.
        portable: Whether an engine built on one GPU runs on others, whatever GPU is in the builder.
        reads_older: Whether it reads what an older version of it made.
        preference: Order in which a client takes them, the least first.
        magic: First bytes of an engine file; None where these are not the runtime's own.
        suffix: Of an engine file.
    """

    title: str
    module: str
    packages: tuple[tuple[str, int | None], ...]
    extra: str
    install: str
    session: str
    backend: str
    gpu: bool
    portable: bool
    reads_older: bool
    preference: int
    magic: bytes | None
    suffix: str


RUNTIME_FACTS = complete(
    Runtime,
    {
        Runtime.ORT: RuntimeFacts(
            title="ONNX Runtime",
            module="onnxruntime",
            packages=(("onnxruntime", None),),
            extra="onnxruntime",
            install="pip install 'caft-zoo[onnxruntime]'",
            session="zoo.runtime.onnxruntime",
            backend="builders.backends.onnxruntime",
            gpu=False,
            portable=True,
            reads_older=True,
            preference=2,
            magic=None,
            suffix=".onnx",
        ),
        Runtime.RTX: RuntimeFacts(
            title="TensorRT-RTX",
            module="tensorrt_rtx",
            packages=(("tensorrt-rtx-cu13", 13),),
            extra="rtx",
            install="pip install 'caft-zoo[rtx]'",
            session="zoo.runtime.tensorrt.session",
            backend="builders.backends.tensorrt_rtx",
            gpu=True,
            portable=True,
            reads_older=False,
            preference=1,
            magic=b"vtrt",
            suffix=".engine",
        ),
        Runtime.TRT: RuntimeFacts(
            title="TensorRT",
            module="tensorrt",
            packages=(("tensorrt-cu13", 13), ("tensorrt-cu12", 12), ("tensorrt", None)),
            extra="tensorrt",
            install="the TensorRT of the engine's version",
            session="zoo.runtime.tensorrt.session",
            backend="builders.backends.tensorrt",
            gpu=True,
            portable=False,
            reads_older=False,
            preference=0,
            magic=b"ftrt",
            suffix=".engine",
        ),
    },
)


def title_of(runtime: Runtime | Unknown) -> str:
    """Returns what people call a runtime; of an unknown one, its name in the record."""
    return str(runtime) if isinstance(runtime, Unknown) else RUNTIME_FACTS[runtime].title


def is_portable(runtime: Runtime | Unknown) -> bool:
    """Whether an engine built on one GPU runs on others; not of an unknown one."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].portable


def has_header(runtime: Runtime | Unknown) -> bool:
    """Whether engines start with a header that says what made them."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].magic is not None


def gpu_runtimes() -> list[Runtime]:
    """Returns the runtimes for GPUs, the preferred first."""
    return sorted((one for one in Runtime if RUNTIME_FACTS[one].gpu), key=preference_of)


def preference_of(runtime: Runtime | Unknown) -> int:
    """Returns where a runtime stands in a client's order; unknown ones come last."""
    if not isinstance(runtime, Unknown):
        return RUNTIME_FACTS[runtime].preference
    return len(Runtime)
