"""Runtimes, with one table of their properties.

Versions of runtimes and the GPUs that they support are in ``zoo/schema/targets.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from zoo.schema.closed import Lenient, Unknown, complete
from zoo.util.strenum import StrEnum


class Runtime(StrEnum):
    """The runtime of an engine."""

    ORT = "ort"
    RTX = "rtx"
    TRT = "trt"


AnyRuntime: TypeAlias = Annotated[Runtime | Unknown, Lenient(Runtime)]
"""A runtime in a record, which a later version may have written."""


@dataclass(frozen=True, kw_only=True)
class RuntimeFacts:
    """The properties of a runtime.

    Attributes:
        title: Its name for users.
        module: Its Python module.
        packages: Packages that provide it, each with its CUDA major version, None if the name does
            not state one.
        extra: The extra of this package that installs a client's requirements.
        install: How a client installs it, for hints.
        session: Module of the class that runs its engines.
        backend: Module of the farm that builds its engines.
        gpu: Whether it runs on GPUs rather than on the CPU.
        portable: Whether an engine built on one GPU runs on others.
        reads_older: Whether it loads engines built by older versions.
        preference: Order in which a client chooses, lowest first.
        magic: First bytes of an engine file; None if the file format is not the runtime's own.
        suffix: Suffix of an engine file.
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
    """Returns a runtime's title; for an unknown runtime, its name in the record."""
    return str(runtime) if isinstance(runtime, Unknown) else RUNTIME_FACTS[runtime].title


def is_portable(runtime: Runtime | Unknown) -> bool:
    """Whether a runtime's engines run on other GPUs than the one they were built on."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].portable


def has_header(runtime: Runtime | Unknown) -> bool:
    """Whether a runtime's engines start with a header that states their version."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].magic is not None


def gpu_runtimes() -> list[Runtime]:
    """Returns the runtimes for GPUs, in a client's order of preference."""
    on_gpu = (runtime for runtime in Runtime if RUNTIME_FACTS[runtime].gpu)
    return sorted(on_gpu, key=preference_of)


def cpu_runtimes() -> list[Runtime]:
    """Returns the runtimes for the CPU, in a client's order of preference."""
    on_cpu = (runtime for runtime in Runtime if not RUNTIME_FACTS[runtime].gpu)
    return sorted(on_cpu, key=preference_of)


def runs_onnx(runtime: Runtime | Unknown) -> bool:
    """Whether a runtime's engines are ONNX models, so that a head can be appended to them."""
    return not isinstance(runtime, Unknown) and RUNTIME_FACTS[runtime].suffix == ".onnx"


def preference_of(runtime: Runtime | Unknown) -> int:
    """Returns a runtime's rank in a client's order of preference; unknown ones come last."""
    if not isinstance(runtime, Unknown):
        return RUNTIME_FACTS[runtime].preference
    return len(Runtime)
