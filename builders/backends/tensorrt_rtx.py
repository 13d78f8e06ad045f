"""TensorRT-RTX: engines for other GPUs, built on any CPU machine.

One engine can serve several architectures. It can only be run on one of them, so what is read back
here is its header: format, version, length and which compute capabilities it holds code for.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.backends.base import Facts
from zoo.errors import BuildError, MissingPackageError
from zoo.key import BuildInputs
from zoo.target import Arch

# Bit of each compute capability in the header's mask, and the header's layout, read off engines
# built by 1.7.1.116 for one capability at a time.
_MASK_BITS = {"sm75": 0, "sm80": 1, "sm86": 2, "sm89": 3, "sm120": 4, "sm121": 5}
_MAGIC = b"vtrt"
_HEADER_SIZE = 36  # magic at 0, length of the whole engine at 16, version at 24, mask at 32


@dataclass(frozen=True, kw_only=True)
class Header:
    """Header of a TensorRT-RTX engine.

    Attributes:
        version: ``1.7.1.116``.
        archs: Architectures that the engine holds code for.
        length: Bytes of the whole engine.
    """

    version: str
    archs: tuple[str, ...]
    length: int


def read_header(data: bytes) -> Header:
    """Reads the header of an engine.

    Args:
        data: The engine's first 36 bytes or more.

    Raises:
        BuildError: The bytes are no TensorRT-RTX engine.
    """
    if len(data) < _HEADER_SIZE or not data.startswith(_MAGIC):
        raise BuildError("not a TensorRT-RTX engine: its header does not start with 'vtrt'")
    (length,) = struct.unpack_from("<Q", data, 16)
    version = ".".join(str(number) for number in data[24:28])
    (mask,) = struct.unpack_from("<I", data, 32)
    archs = tuple(name for name, bit in _MASK_BITS.items() if mask >> bit & 1)
    if unknown := mask & ~sum(1 << bit for bit in _MASK_BITS.values()):
        raise BuildError(f"the engine's capability mask has unknown bits: {unknown:#x}")
    return Header(version=version, archs=archs, length=length)


def check_header(header: Header, length: int, inputs: BuildInputs) -> None:
    """Compares an engine's header with what was asked for.

    Args:
        header: As read.
        length: Bytes that there are.
        inputs: What was asked for.

    Raises:
        BuildError: Another version, other architectures, or another length.
    """
    if header.length != length:
        raise BuildError(f"the engine says it has {header.length} bytes, it has {length}")
    if header.version != inputs.toolchain.version:
        raise BuildError(
            f"the engine says TensorRT-RTX {header.version}, the toolchain is "
            f"{inputs.toolchain.version}"
        )
    if set(header.archs) != set(inputs.archs):
        raise BuildError(
            f"the engine serves {', '.join(header.archs) or 'nothing'}, "
            f"{', '.join(inputs.archs)} was asked for"
        )


class TensorRTRTXBackend:
    """Builds with Polygraphy's loaders, strongly typed: precision is in the ONNX."""

    def options(self) -> dict[str, Any]:
        """Returns the builder options. TF32 is off: an engine named fp32 is fp32."""
        return {"strongly_typed": True, "tf32": False}

    def build(self, onnx: Path, inputs: BuildInputs, engine: Path) -> Facts:
        """Builds an engine; see :class:`~builders.backends.base.Backend`."""
        # Read when Polygraphy is imported: a process serves one of the two TensorRTs.
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
        try:
            import tensorrt_rtx
            from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
            from polygraphy.backend.trt import (
                EngineBytesFromNetwork,
                NetworkFromOnnxPath,
                PostprocessConfig,
                Profile,
            )
            from polygraphy.exception import PolygraphyException
        except ImportError as error:
            raise MissingPackageError(
                f"TensorRT-RTX can't be imported: {error}",
                hint="pip install -e '.[farm]' -c constraints.txt",
            ) from error
        batch = inputs.batch
        try:
            builder, network, parser = NetworkFromOnnxPath(str(onnx), strongly_typed=True)()
            tensor = network.get_input(0)
            image = tuple(tensor.shape)[1:]
            profile = Profile().add(
                tensor.name, (batch.min, *image), (batch.opt, *image), (batch.max, *image)
            )
            config = CreateConfigRTX(
                compute_capabilities=[Arch(name).compute_capability for name in inputs.archs],
                profiles=[profile],
            )
            without_tf32 = PostprocessConfig(
                config,
                func=lambda builder, network, config: config.clear_flag(
                    tensorrt_rtx.BuilderFlag.TF32
                ),
            )
            plan = EngineBytesFromNetwork((builder, network, parser), config=without_tf32)()
        except PolygraphyException as error:
            raise BuildError(f"TensorRT-RTX does not build the ONNX: {error}") from error
        view = memoryview(plan)
        header = read_header(bytes(view[:_HEADER_SIZE]))
        check_header(header, len(view), inputs)
        with engine.open("wb") as file:
            file.write(view)
        return Facts(values={"header": vars(header), "input": list(image)})


BACKEND = TensorRTRTXBackend()
