"""TensorRT-RTX: engines for other GPUs, built on any machine, without a GPU.

One engine can serve several architectures. It can't be run without one of them, so only its header
is inspected: format, version, length and the compute capabilities that it contains code for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from builders.backends.base import Facts, Options, read_options
from zoo.runtime.header import HEADER_SIZE, Header, read_header
from zoo.schema.keys import BuildInputs
from zoo.schema.measurements import EngineFacts, EngineHeader
from zoo.schema.targets import Arch, Runtime, Toolchain
from zoo.util.causes import cause_of
from zoo.util.errors import BuildError, MissingPackageError, RunError


class TensorRTRTXOptions(Options):
    """Builder options of TensorRT-RTX.

    Attributes:
        strongly_typed: Always on: TensorRT-RTX runs layers in the types of the ONNX.
        tf32: Always off: an fp32 engine computes in fp32.
    """

    strongly_typed: Literal[True] = True
    tf32: Literal[False] = False


def check_header(header: Header, length: int, inputs: BuildInputs) -> None:
    """Checks that an engine's header matches the inputs of its build.

    Args:
        header: The header.
        length: The engine's actual size in bytes.
        inputs: The inputs of the build.

    Raises:
        BuildError: The header states another runtime, version, length or set of architectures.
    """
    if header.kind != Runtime.RTX:
        raise BuildError("TensorRT-RTX built a file that is not a TensorRT-RTX engine")
    if header.length != length:
        raise BuildError(f"the engine's header states {header.length} bytes, it has {length}")
    if header.version != inputs.toolchain.version:
        raise BuildError(
            f"the engine's header states TensorRT-RTX {header.version}, the toolchain is "
            f"{inputs.toolchain.version}"
        )
    if set(header.archs or ()) != set(inputs.archs):
        raise BuildError(
            f"the engine supports {', '.join(header.archs or ()) or 'no architecture'}, not "
            f"{', '.join(inputs.archs)} as requested"
        )


class TensorRTRTXBackend:
    """Builds strongly typed networks with Polygraphy's loaders."""

    def options(self, toolchain: Toolchain, requested: Mapping[str, str]) -> TensorRTRTXOptions:
        """Returns the builder options; see :class:`~builders.backends.base.Backend`."""
        return read_options(TensorRTRTXOptions(), toolchain, requested)

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
        # Polygraphy reads it at import: a process can use only one of the two TensorRTs.
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
                f"TensorRT-RTX can't be imported: {cause_of(error)}",
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
                    f"TensorRT-RTX can't build the ONNX: {cause_of(error)}", hint=logged.told
                ) from error
        view = memoryview(plan)
        try:
            header = read_header(bytes(view[:HEADER_SIZE]), "the built file")
        except RunError as error:
            raise BuildError(error.message) from error
        check_header(header, len(view), inputs)
        with engine.open("wb") as file:
            file.write(view)
        return Facts(values=EngineFacts(header=EngineHeader(**asdict(header)), input=image))


BACKEND = TensorRTRTXBackend()
