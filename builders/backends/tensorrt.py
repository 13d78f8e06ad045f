"""Standard TensorRT 8.6 to 11: engines are built on the GPU architecture that runs them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from builders.backends import inspector, tensorrt_api
from builders.backends.base import Facts, options_of, read_options
from builders.backends.tensorrt_api import TensorRTOptions
from builders.backends.timing_caches import TimingCache
from zoo.runtime import cuda, open_session
from zoo.runtime.header import read_file_header
from zoo.runtime.tensorrt.session import TensorRTSession
from zoo.schema.keys import BuildInputs
from zoo.schema.measurements import EngineFacts, EngineHeader, LayerSummary
from zoo.schema.precisions import PRECISION_FACTS, Lowering
from zoo.schema.targets import Precision, Toolchain
from zoo.util.causes import cause_of
from zoo.util.errors import BuildError, MissingPackageError, UsageError


@dataclass(frozen=True, kw_only=True)
class _Inspection:
    """What a loaded engine states.

    Attributes:
        layers: Its layers.
        device_memory: Bytes of device memory by optimisation profile.
        file: Its inspector JSON.
    """

    layers: LayerSummary
    device_memory: tuple[int, ...]
    file: Path


class TensorRTBackend:
    """Builds with Polygraphy's loaders on this machine's GPU and inspects the engine."""

    def options(self, toolchain: Toolchain, requested: Mapping[str, str]) -> TensorRTOptions:
        """Returns the builder options; see :class:`~builders.backends.base.Backend`."""
        strongly_typed = tensorrt_api.is_strongly_typed(toolchain)
        defaults = TensorRTOptions(
            hardware_compatibility=tensorrt_api.default_compatibility(toolchain),
            strongly_typed=strongly_typed,
            precision_constraints="none" if strongly_typed else "prefer",
        )
        options = read_options(defaults, toolchain, requested)
        tensorrt_api.check_compatibility(toolchain, options.hardware_compatibility)
        tensorrt_api.check_tactics(toolchain, options.tactics)
        if options.strongly_typed != strongly_typed:
            raise UsageError(
                f"builder option strongly_typed={options.strongly_typed}: networks are strongly "
                "typed from TensorRT 9.0 on, and weakly typed before",
                hint=f"leave it out: TensorRT {toolchain.version} has "
                f"strongly_typed={strongly_typed}",
            )
        if strongly_typed and options.precision_constraints != "none":
            raise UsageError(
                f"builder option precision_constraints={options.precision_constraints}: "
                "strongly typed networks have no constraints",
                hint=f"leave it out: TensorRT {toolchain.version} runs layers in the ONNX's types",
            )
        return options

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
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "0"
        try:
            import tensorrt
            from polygraphy.backend.trt import (
                CreateConfig,
                EngineBytesFromNetwork,
                PostprocessConfig,
            )
            from polygraphy.exception import PolygraphyException

            from builders.backends.network import hold_to_fp32, parse_network, weighted_in_fp32
            from builders.backends.polygraphy_log import logged_errors
        except (ImportError, OSError) as error:
            raise MissingPackageError(
                f"TensorRT {inputs.toolchain.version} can't be imported: {cause_of(error)}",
                hint="zoo-farm targets names the package and the container of each version",
            ) from error
        cuda.open_device()  # without a GPU, TensorRT's builder crashes instead of raising
        options = options_of(inputs, TensorRTOptions)
        configured = tensorrt_api.config_arguments(tensorrt, inputs.precision, options)
        cache = TimingCache(timing_cache, options)
        keeps_cache = options.timing_cache or cache.keeps_tactics

        def finish(builder: Any, network: Any, config: Any) -> None:
            for feature in configured.preview_features:
                config.set_preview_feature(feature, True)
            cache.load_into(config, tensorrt)

        new_cache = engine.with_name("timing.cache")
        with logged_errors() as logged:
            try:
                parsed, profiles, image = parse_network(
                    onnx,
                    inputs.profiles,
                    inputs.precision,
                    strongly_typed=options.strongly_typed,
                )
                kept = 0
                if options.strongly_typed:
                    kept = _stays_fp32(inputs.precision, weighted_in_fp32, parsed[1])
                elif "precision_constraints" in configured.arguments:
                    kept = hold_to_fp32(parsed[1], tensorrt)
                config = CreateConfig(profiles=profiles, **configured.arguments)
                plan = EngineBytesFromNetwork(
                    parsed,
                    config=PostprocessConfig(config, func=finish),
                    save_timing_cache=str(new_cache) if keeps_cache else None,
                )()
            except PolygraphyException as error:
                raise cache.failure(cause_of(error), logged.told) from error
        cache.check()
        with engine.open("wb") as file:
            file.write(memoryview(plan))
        del plan, parsed
        inspection = self._inspect(engine, inputs)
        judgement = _judge(inspection.layers, inputs, engine, parameters, kept)
        return Facts(
            values=EngineFacts(
                header=EngineHeader(**asdict(read_file_header(engine))),
                input=image,
                device_memory=inspection.device_memory,
                inspector=inspection.layers,
                precision=judgement.reason,
                timing_cache=cache.outcome,
            ),
            precision_proven=judgement.proof is inspector.Proof.PROVEN,
            files={"inspector": inspection.file, **_recorded(cache, timing_cache, new_cache)},
            timing_cache=new_cache if new_cache.exists() and not cache.keeps_tactics else None,
        )

    def _inspect(self, engine: Path, inputs: BuildInputs) -> _Inspection:
        """Loads an engine and writes its inspector JSON to a file beside it."""
        path = engine.with_name("inspector.json")
        with open_session(engine, inputs) as session:
            assert isinstance(session, TensorRTSession)
            text = session.inspect()
            memory = tuple(session.profile_memory)
        path.write_text(json.dumps(inspector.read(text), indent=1))
        return _Inspection(layers=inspector.summarise(text), device_memory=memory, file=path)


def _stays_fp32(precision: Precision, count: Callable[[Any], int], network: Any) -> int:
    """Returns how many layers with weights must stay fp32 in a strongly typed network.

    Args:
        precision: The engine's precision.
        count: Counts a network's layers with fp32 weights.
        network: The TensorRT network.
    """
    lowering = PRECISION_FACTS[precision].lowering
    match lowering:
        case Lowering.TYPED:
            return count(network)
        case Lowering.NONE | Lowering.QUANTISED:  # int8 has its own type for the remaining layers
            return 0
        case _:
            assert_never(lowering)


def _judge(
    layers: LayerSummary, inputs: BuildInputs, engine: Path, parameters: int, kept: int
) -> inspector.Judgement:
    """Returns whether an engine is proven to run in the precision of its name.

    Raises:
        BuildError: Its layers or size contradict its name.
    """
    size = engine.stat().st_size
    judgement = inspector.judge(layers, inputs.precision, parameters, size, kept=kept)
    match judgement.proof:
        case inspector.Proof.CONTRADICTED:
            raise BuildError(f"the engine does not run in {inputs.precision}: {judgement.reason}")
        case inspector.Proof.PROVEN | inspector.Proof.UNPROVEN:
            return judgement
        case _:
            assert_never(judgement.proof)


def _recorded(cache: TimingCache, lock: Path | None, written: Path) -> dict[str, Path]:
    """Returns the file with the tactics of an engine, by its name; that of a lock stays the same.

    Args:
        cache: The timing cache of the build.
        lock: The tactics that it had to keep to.
        written: The timing cache after the build.
    """
    if not cache.keeps_tactics:
        return {}
    if cache.locked:
        assert lock is not None
        shutil.copyfile(lock, written)
    return {"tactics": written}


BACKEND = TensorRTBackend()
