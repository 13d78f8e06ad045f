"""TensorRT-RTX: engines for other GPUs, built on any CPU machine.

One engine can serve several architectures. It can only be run on one of them, so what is read back
here is its header: format, version, length and which compute capabilities it holds code for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from builders.backends.base import Facts, Options, read_options
from zoo.runtime.header import HEADER_SIZE, Header, read_header
from zoo.schema.keys import BuildInputs
from zoo.schema.targets import Arch, Runtime, Toolchain
from zoo.util.errors import BuildError, MissingPackageError, RunError


class TensorRTRTXOptions(Options):
    """Builder options of TensorRT-RTX.

    Attributes:
        strongly_typed: Precision is in the ONNX; TensorRT-RTX knows nothing else.
        tf32: Off: an engine named fp32 is fp32.
    """

    strongly_typed: Literal[True] = True
    tf32: Literal[False] = False


def check_header(header: Header, length: int, inputs: BuildInputs) -> None:
    """Compares an engine's header with what was asked for.

    Args:
        header: As read.
        length: Bytes that there are.
        inputs: What was asked for.

    Raises:
        BuildError: Another version, other architectures, or another length.
    """
    if header.kind != Runtime.RTX:
        raise BuildError("what TensorRT-RTX built is no TensorRT-RTX engine")
    if header.length != length:
        raise BuildError(f"the engine says it has {header.length} bytes, it has {length}")
    if header.version != inputs.toolchain.version:
        raise BuildError(
            f"the engine says TensorRT-RTX {header.version}, the toolchain is "
            f"{inputs.toolchain.version}"
        )
    if set(header.archs or ()) != set(inputs.archs):
        raise BuildError(
            f"the engine serves {', '.join(header.archs or ()) or 'nothing'}, "
            f"{', '.join(inputs.archs)} was asked for"
        )


class TensorRTRTXBackend:
    """Builds with Polygraphy's loaders, strongly typed: precision is in the ONNX."""

    def options(self, toolchain: Toolchain, asked: Mapping[str, str]) -> dict[str, Any]:
        """Returns the builder options; see :class:`~builders.backends.base.Backend`."""
        return read_options(TensorRTRTXOptions(), toolchain, asked)

    def build(
        self,
        onnx: Path,
        inputs: BuildInputs,
        engine: Path,
        *,
        parameters: int,
        timing_cache: Path | None = None,
    ) -> Facts:
        """Builds an engine; see :class:`~builders.backends.base.Backend`."""
        # Read when Polygraphy is imported: a process serves one of the two TensorRTs.
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
        try:
            import tensorrt_rtx
            from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
            from polygraphy.backend.trt import EngineBytesFromNetwork, PostprocessConfig
            from polygraphy.exception import PolygraphyException

            from builders.backends.network import parse_network
            from builders.backends.polygraphy_log import logged_errors
        except (ImportError, OSError) as error:
            raise MissingPackageError(
                f"TensorRT-RTX can't be imported: {error}",
                hint="pip install -e '.[farm]' -c constraints.txt",
            ) from error
        with logged_errors() as logged:
            try:
                parsed, profiles, image = parse_network(
                    onnx, inputs.profiles, inputs.precision, strongly_typed=True
                )
                config = CreateConfigRTX(
                    compute_capabilities=[Arch(name).compute_capability for name in inputs.archs],
                    profiles=profiles,
                )
                without_tf32 = PostprocessConfig(
                    config,
                    func=lambda builder, network, config: config.clear_flag(
                        tensorrt_rtx.BuilderFlag.TF32
                    ),
                )
                plan = EngineBytesFromNetwork(parsed, config=without_tf32)()
            except PolygraphyException as error:
                raise BuildError(
                    f"TensorRT-RTX does not build the ONNX: {error}", hint=logged.last
                ) from error
        view = memoryview(plan)
        try:
            header = read_header(bytes(view[:HEADER_SIZE]), "what TensorRT-RTX built")
        except RunError as error:
            raise BuildError(error.message) from error
        check_header(header, len(view), inputs)
        with engine.open("wb") as file:
            file.write(view)
        return Facts(values={"header": asdict(header), "input": list(image)})


BACKEND = TensorRTRTXBackend()
