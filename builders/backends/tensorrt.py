"""Standard TensorRT, 8.6 to 11: an engine is built on the kind of GPU that runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import assert_never

from builders.backends import inspector, tensorrt_api
from builders.backends.base import Facts, Options, read_options
from builders.backends.tensorrt_api import HardwareCompatibility
from zoo.runtime import cuda, open_session
from zoo.runtime.header import read_file_header
from zoo.runtime.tensorrt.session import TensorRTSession
from zoo.schema.keys import BuildInputs
from zoo.schema.targets import Precision, Toolchain
from zoo.util.errors import BuildError, MissingPackageError, UsageError


class TensorRTOptions(Options):
    """Builder options of TensorRT.

    Attributes:
        optimization_level: 0 to 5: how long tactics are searched.
        workspace_gib: Most device memory that a tactic may take, GiB.
        hardware_compatibility: On which other cards the engine may run.
        version_compatible: Whether later TensorRTs of the major version may load it; costs size
            and speed.
        tactic_sources: ``own`` leaves cuBLAS and cuDNN out: the engine needs TensorRT alone.
        timing_cache: Whether timings of earlier builds on the same card are taken.
        strongly_typed: Whether the ONNX's types are law; else flags allow its precision.
        precision_constraints: Whether what the ONNX of an fp16 engine has in fp32 is to stay so,
            where networks are not strongly typed: ``prefer``, if there is a tactic, or ``obey``.
        tf32: Off: an engine named fp32 is fp32.
    """

    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    workspace_gib: Annotated[float, Field(gt=0, le=1024)] = 8.0
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    tactic_sources: Literal["own", "default"] = "own"
    timing_cache: bool = True
    strongly_typed: bool = True
    precision_constraints: Literal["none", "prefer", "obey"] = "none"
    tf32: Literal[False] = False


class TensorRTBackend:
    """Builds with Polygraphy's loaders on this machine's GPU, and asks the engine what it is."""

    def options(self, toolchain: Toolchain, asked: Mapping[str, str]) -> dict[str, Any]:
        """Returns the builder options; see :class:`~builders.backends.base.Backend`."""
        strongly_typed = tensorrt_api.is_strongly_typed(toolchain)
        defaults = TensorRTOptions(
            hardware_compatibility=tensorrt_api.default_compatibility(toolchain),
            strongly_typed=strongly_typed,
            precision_constraints="none" if strongly_typed else "prefer",
        )
        options = read_options(defaults, toolchain, asked)
        tensorrt_api.check_compatibility(toolchain, options["hardware_compatibility"])
        if options["strongly_typed"] != strongly_typed:
            raise UsageError(
                f"builder option strongly_typed={options['strongly_typed']}: networks are strongly "
                "typed where TensorRT has such, from 9.0 on, and nowhere else",
                hint=f"leave it out: TensorRT {toolchain.version} has "
                f"strongly_typed={strongly_typed}",
            )
        if strongly_typed and options["precision_constraints"] != "none":
            raise UsageError(
                f"builder option precision_constraints={options['precision_constraints']}: "
                "strongly typed networks have no constraints",
                hint=f"leave it out: in TensorRT {toolchain.version} the types of the ONNX are law",
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
                f"TensorRT {inputs.toolchain.version} can't be imported: {error}",
                hint="zoo-farm targets names the package and the container of each version",
            ) from error
        cuda.open_device()  # without a GPU, TensorRT's builder crashes instead of saying so
        options = inputs.options
        said = tensorrt_api.config_arguments(
            tensorrt, inputs.precision, options, options["strongly_typed"]
        )
        cache = _TimingCache(timing_cache if options["timing_cache"] else None)

        def finish(builder: Any, network: Any, config: Any) -> None:
            for feature in said.preview_features:
                config.set_preview_feature(feature, True)
            cache.load_into(config)

        new_cache = engine.with_name("timing.cache")
        with logged_errors() as logged:
            try:
                parsed, profiles, image = parse_network(
                    onnx,
                    inputs.profiles,
                    inputs.precision,
                    strongly_typed=options["strongly_typed"],
                )
                kept = 0
                if options["strongly_typed"]:
                    kept = _stays_fp32(inputs.precision, weighted_in_fp32, parsed[1])
                elif "precision_constraints" in said.arguments:
                    kept = hold_to_fp32(parsed[1], tensorrt)
                config = CreateConfig(profiles=profiles, **said.arguments)
                plan = EngineBytesFromNetwork(
                    parsed,
                    config=PostprocessConfig(config, func=finish),
                    save_timing_cache=str(new_cache) if options["timing_cache"] else None,
                )()
            except PolygraphyException as error:
                raise BuildError(
                    f"TensorRT does not build the ONNX: {error}", hint=logged.last
                ) from error
        with engine.open("wb") as file:
            file.write(memoryview(plan))
        del plan, parsed
        facts, inspected = self._ask(engine, inputs, image)
        judgement = _judged(facts, inputs, engine, parameters, kept)
        return Facts(
            values={**facts, "precision": judgement.reason, "timing_cache": cache.outcome},
            precision_proven=judgement.proof is inspector.Proof.PROVEN,
            files={"inspector": inspected},
            timing_cache=new_cache if new_cache.exists() else None,
        )

    def _ask(
        self, engine: Path, inputs: BuildInputs, image: tuple[int, ...]
    ) -> tuple[dict[str, Any], Path]:
        """Loads the engine and writes down what it says of itself."""
        path = engine.with_name("inspector.json")
        with open_session(engine, inputs) as session:
            assert isinstance(session, TensorRTSession)
            text = session.inspect()
            memory = session.profile_memory
        path.write_text(json.dumps(inspector.read(text), indent=1))
        return {
            "header": asdict(read_file_header(engine)),
            "input": list(image),
            "device_memory": list(memory),
            "inspector": inspector.summarise(text),
        }, path


def _stays_fp32(precision: Precision, count: Callable[[Any], int], network: Any) -> int:
    """Returns how many layers with weights of a strongly typed network are kept at fp32.

    Args:
        precision: Of the engine.
        count: Counts the network's layers with fp32 weights.
        network: TensorRT's.
    """
    match precision:
        case Precision.FP16 | Precision.BF16:
            return count(network)
        case Precision.FP32 | Precision.INT8:  # what is not quantised has a type of its own
            return 0
        case _:
            assert_never(precision)


def _judged(
    facts: dict[str, Any], inputs: BuildInputs, engine: Path, parameters: int, kept: int
) -> inspector.Judgement:
    """Returns whether an engine is proven to run in the precision of its name, and by what.

    Raises:
        BuildError: It says that it does not.
    """
    size = engine.stat().st_size
    judgement = inspector.judge(facts["inspector"], inputs.precision, parameters, size, kept=kept)
    match judgement.proof:
        case inspector.Proof.CONTRADICTED:
            raise BuildError(
                f"an engine named {inputs.precision} that does not run in it: {judgement.reason}"
            )
        case inspector.Proof.PROVEN | inspector.Proof.UNPROVEN:
            return judgement
        case _:
            assert_never(judgement.proof)


class _TimingCache:
    """A timing cache of earlier builds; ``outcome`` says whether TensorRT took it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.outcome = "none for this GPU and TensorRT yet"

    def load_into(self, config: Any) -> None:
        """Gives the cache to a builder's config. A version may refuse it; the build goes on."""
        if self._path is None:
            return
        cache = config.create_timing_cache(self._path.read_bytes())
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            self.outcome = "taken"
            return
        self.outcome = "refused by TensorRT; built without"
        print(f"timing cache {self._path.name}: {self.outcome}")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


BACKEND = TensorRTBackend()
