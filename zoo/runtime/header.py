"""Reads and checks the headers of TensorRT engines without loading them.

Some TensorRT versions crash when they deserialise an engine of another version. The header is
enough to detect most mismatches and truncated files first.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import assert_never

from zoo.runtime.base import check_size
from zoo.schema.build_hint import build_hint
from zoo.schema.keys import BuildInputs
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, title_of
from zoo.schema.targets import Arch
from zoo.util.errors import RunError

HEADER_SIZE = 36
"""Number of bytes to read: magic at offset 0, version at 24; for TensorRT-RTX also the length of
the engine at 16 and a mask of compute capabilities at 32."""

_MAGIC = {facts.magic: kind for kind, facts in RUNTIME_FACTS.items() if facts.magic is not None}

# Bit of each compute capability in TensorRT-RTX's mask, determined from engines that 1.7.1.116
# built for a single capability each.
_MASK_BITS = {"sm75": 0, "sm80": 1, "sm86": 2, "sm89": 3, "sm120": 4, "sm121": 5}


@dataclass(frozen=True, kw_only=True)
class Header:
    """Header of an engine.

    Attributes:
        kind: ``trt`` or ``rtx``.
        version: Version of the runtime that built it, ``1.7.1.116``.
        length: Size of the engine in bytes; None if not in the header.
        archs: Architectures that it contains code for; None if not in the header.
    """

    kind: Runtime
    version: str
    length: int | None = None
    archs: tuple[str, ...] | None = None


def read_header(data: bytes, name: str = "the file") -> Header:
    """Reads the header of an engine.

    Args:
        data: At least the first :data:`HEADER_SIZE` bytes of the engine.
        name: Name of the engine for error messages.

    Raises:
        RunError: The data is not a TensorRT engine, or of an unknown newer format.
    """
    kind = _MAGIC.get(bytes(data[:4]))
    if kind is None or len(data) < HEADER_SIZE:
        raise RunError(
            f"{name} is not a TensorRT engine: it does not start with 'ftrt' or 'vtrt'",
            hint="download and check engines with zoo pull",
        )
    version = ".".join(str(number) for number in data[24:28])
    match kind:
        case Runtime.TRT:
            return Header(kind=kind, version=version)
        case Runtime.RTX:
            return _portable_header(data, version, name)
        case Runtime.ORT:
            raise RunError(f"{name}: models of {title_of(kind)} have no header")
        case _:
            assert_never(kind)


def _portable_header(data: bytes, version: str, name: str) -> Header:
    """Reads the additional fields of a TensorRT-RTX header."""
    (length,) = struct.unpack_from("<Q", data, 16)
    (mask,) = struct.unpack_from("<I", data, 32)
    if unknown := mask & ~sum(1 << bit for bit in _MASK_BITS.values()):
        raise RunError(f"{name}: its mask of compute capabilities has unknown bits: {unknown:#x}")
    archs = tuple(arch for arch, bit in _MASK_BITS.items() if mask >> bit & 1)
    return Header(kind=Runtime.RTX, version=version, length=length, archs=archs)


def read_file_header(engine: Path) -> Header:
    """Reads the header of an engine file and checks the file's length if the header has it.

    Raises:
        RunError: The file is not an engine, is truncated, or can't be read.
    """
    try:
        with engine.open("rb") as file:
            header = read_header(file.read(HEADER_SIZE), engine.name)
        length = engine.stat().st_size
    except OSError as error:
        raise RunError(f"{engine}: can't be read: {error.strerror}") from error
    if header.length is not None and header.length != length:
        raise RunError(
            f"{engine.name} has {length:,} bytes instead of {header.length:,}: it is truncated or "
            "was modified",
            hint="download it again with zoo pull",
        )
    return header


def same_version(header: Header, version: str) -> bool:
    """Returns whether versions agree in the components that both have."""
    ours, theirs = version.split("."), header.version.split(".")
    common = min(len(ours), len(theirs))
    return ours[:common] == theirs[:common]


def describe(header: Header) -> str:
    """Describes an engine: ``TensorRT-RTX 1.7.1.116 engine for sm86``."""
    archs = f" for {', '.join(header.archs)}" if header.archs else ""
    return f"{title_of(header.kind)} {header.version} engine{archs}"


def check_engine(engine: Path, inputs: BuildInputs, size: int | None) -> None:
    """Compares an engine file with its record without loading it.

    Raises:
        RunError: The file is not an engine, is damaged, or does not match the record.
    """
    check_size(engine, size)
    header = read_file_header(engine)
    toolchain = inputs.toolchain
    wanted = f"{title_of(toolchain.kind)} {toolchain.version}"
    if header.kind != toolchain.kind or not same_version(header, toolchain.version):
        raise RunError(
            f"{engine.name} is a {describe(header)}, its record says {wanted}",
            hint="fetch it again with zoo pull",
        )
    if header.archs is not None and not set(inputs.archs) <= set(header.archs):
        raise RunError(
            f"{engine.name} is a {describe(header)}, its record says {', '.join(inputs.archs)}",
            hint="fetch it again with zoo pull",
        )


def check_arch(inputs: BuildInputs, here: Sequence[int]) -> None:
    """Checks that an engine supports the GPU's architecture.

    Args:
        inputs: The engine's build inputs.
        here: Compute capability of the GPU, major and minor.

    Raises:
        RunError: The engine is for another architecture.
    """
    major, minor = here
    if (major, minor) in [Arch(name).compute_capability for name in inputs.archs]:
        return
    build = build_hint(inputs.model, arch=f"sm{major}{minor}")
    raise RunError(
        f"the engine is for {' or '.join(inputs.archs)}, this GPU is sm{major}{minor}",
        hint=f"zoo show {inputs.model} lists the others" + (f"; {build}" if build else ""),
    )
