"""What TensorRT's Python bindings really have, by version: our code goes by these names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.tensorrt_bindings import WHEELS, run_in

DIFFERS = """
                                                            10.13  10.16  11.4  rtx1.7
BuilderFlag.FP16                                            yes    yes    -     -
BuilderFlag.INT8                                            yes    yes    -     -
BuilderFlag.OBEY_PRECISION_CONSTRAINTS                      yes    yes    -     -
NetworkDefinitionCreationFlag.EXPLICIT_BATCH                yes    yes    -     -
TacticSource.CUBLAS                                         yes    yes    -     -
TacticSource.CUBLAS_LT                                      yes    yes    -     -
TacticSource.CUDNN                                          yes    yes    -     -
PreviewFeature.PROFILE_SHARING_0806                         yes    yes    -     -
PreviewFeature.MULTIDEVICE_RUNTIME_10_16                    -      yes    -     -
QuantizationFlag                                            yes    yes    -     -
IInt8EntropyCalibrator2                                     yes    yes    -     -
Builder.platform_has_fast_fp16                              yes    yes    -     -
IBuilderConfig.int8_calibrator                              yes    yes    -     -
IBuilderConfig.set_compute_capability                       -      -      -     yes
ICudaEngine.device_memory_size                              yes    yes    -     -
ICudaEngine.get_device_memory_size_for_profile              yes    yes    -     -
ICudaEngine.weight_streaming_budget                         yes    yes    -     -
ICudaEngine.create_execution_context_without_device_memory  yes    yes    -     -
IExecutionContext.is_stream_capturable                      -      -      -     yes
OnnxParser.supports_model                                   yes    yes    -     -
Runtime.engine_header_size                                  -      -      -     yes
Runtime.get_engine_validity                                 -      -      -     yes
"""

EVERYWHERE = """
BuilderFlag: EDITABLE_TIMING_CACHE ERROR_ON_TIMING_CACHE_MISS STRIP_PLAN TF32 VERSION_COMPATIBLE
NetworkDefinitionCreationFlag: STRONGLY_TYPED
HardwareCompatibilityLevel: NONE SAME_COMPUTE_CAPABILITY AMPERE_PLUS
TacticSource: EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS
ProfilingVerbosity: DETAILED
PreviewFeature: ALIASED_PLUGIN_IO_10_03 RUNTIME_ACTIVATION_RESIZE_10_10
LayerInformationFormat: JSON
MemoryPoolType: WORKSPACE
TensorIOMode: INPUT
ExecutionContextAllocationStrategy: STATIC ON_PROFILE_CHANGE USER_MANAGED
Builder: build_serialized_network max_threads
IBuilderConfig: builder_optimization_level create_timing_cache hardware_compatibility_level
IBuilderConfig: profiling_verbosity set_memory_pool_limit set_preview_feature set_tactic_sources
IBuilderConfig: set_timing_cache get_timing_cache set_flag
ITimingCache: query queryKeys serialize
TimingCacheValue: tacticHash
OnnxParser: parse_from_file
ICastLayer: to_type
IConstantLayer: weights
IConvolutionLayer: kernel
Weights: dtype size
Runtime: deserialize_cuda_engine engine_host_code_allowed
EngineInspector: get_engine_information
ICudaEngine: create_engine_inspector create_execution_context create_runtime_config
ICudaEngine: device_memory_size_v2 get_device_memory_size_for_profile_v2 get_tensor_dtype
ICudaEngine: get_tensor_mode get_tensor_name get_tensor_profile_shape get_tensor_shape
ICudaEngine: num_io_tensors num_optimization_profiles streamable_weights_size
ICudaEngine: weight_streaming_budget_v2
IExecutionContext: device_memory execute_async_v3 infer_shapes set_device_memory set_input_shape
IExecutionContext: set_optimization_profile_async set_tensor_address
IExecutionContext: update_device_memory_size_for_shapes
"""

NOWHERE = ("IBuilderConfig.max_threads",)  # it is the builder's and the runtime's

COLUMNS = {version.rpartition(".")[0].rpartition(".")[0]: version for version in WHEELS}

ASK = """
import functools, json
import {module} as trt
def has(name):
    try:
        functools.reduce(getattr, name.split("."), trt)
    except AttributeError:
        return False
    return True
print(json.dumps([name for name in {names} if has(name)]))
"""

CONFIGURE = """
import json
from unittest import mock
import tensorrt as trt
from polygraphy.backend.trt import CreateConfig
from builders.backends import tensorrt_api
from builders.backends.tensorrt import BACKEND
from zoo.schema.targets import Toolchain

chain = Toolchain(kind="trt", version=trt.__version__, cuda=13, os="linux", machine="x86_64")
options = BACKEND.options(chain, {})
configured = tensorrt_api.config_arguments(trt, "fp16", options)
# A config that has the attributes of the real class and no others.
config = mock.create_autospec(trt.IBuilderConfig, instance=True, spec_set=True)
config.flags = 0
builder = mock.create_autospec(trt.Builder, instance=True, spec_set=True)
builder.create_builder_config.return_value = config
CreateConfig(**configured.arguments)(builder, None)
print(json.dumps({
    "level": config.builder_optimization_level,
    "compatibility": config.hardware_compatibility_level.name,
    "verbosity": config.profiling_verbosity.name,
    "pools": [[pool.name, size] for (pool, size), _ in config.set_memory_pool_limit.call_args_list],
    "sources": [source.name for source in trt.TacticSource.__members__.values()
                if config.set_tactic_sources.call_args.args[0] >> int(source) & 1],
    "set": [call.args[0].name for call in config.set_flag.call_args_list],
    "cleared": [call.args[0].name for call in config.clear_flag.call_args_list],
    "preview": [feature.name for feature in configured.preview_features],
}))
"""


LOCK = """
import json
from pathlib import Path
from unittest import mock
import tensorrt as trt
from builders.backends.tensorrt import BACKEND
from builders.backends.timing_caches import TimingCache
from zoo.schema.targets import Toolchain
from zoo.util.errors import BuildError

chain = Toolchain(kind="trt", version=trt.__version__, cuda=13, os="linux", machine="x86_64")

def built(tactics, before, after, accepted=True):
    # A config and caches that have the attributes of the real classes and no others.
    config = mock.create_autospec(trt.IBuilderConfig, instance=True, spec_set=True)
    def cache(known):
        made = mock.create_autospec(trt.ITimingCache, instance=True, spec_set=True)
        made.queryKeys.return_value = list(known)
        made.query.side_effect = lambda key: trt.TimingCacheValue(known[key], 1.0)
        return made
    config.create_timing_cache.side_effect = lambda data: cache(before if data else {})
    config.set_timing_cache.return_value = accepted
    config.get_timing_cache.return_value = cache(after)
    lock = Path(json.__file__)
    made = TimingCache(lock, BACKEND.options(chain, {"tactics": tactics}))
    try:
        made.load_into(config, trt)
        made.check()
        said = made.outcome
    except BuildError as error:
        said = error.message
    first = config.create_timing_cache.call_args_list[0].args[0]
    return [call.args[0].name for call in config.set_flag.call_args_list], bool(first), said

digest = "0" * 64
print(json.dumps([
    built("free", {"k": 1}, {"k": 1}),
    built("recorded", {}, {"k": 1, "l": 2}),
    built("recorded", {}, {}),
    built(digest, {"k": 1, "l": 2}, {"k": 1, "l": 2}),
    built(digest, {"k": 1, "l": 2}, {"k": 1, "l": 3}),
    built(digest, {"k": 1}, {"k": 1}, accepted=False),
]))
"""


def table() -> dict[str, dict[str, bool]]:
    """The tables above: column to name to whether it is there."""
    header, *lines = DIFFERS.strip().splitlines()
    found: dict[str, dict[str, bool]] = {column: {} for column in header.split()}
    for line in lines:
        name, *cells = line.split()
        for column, cell in zip(found, cells, strict=True):
            found[column][name] = cell == "yes"
    everywhere = [
        f"{owner}.{name}"
        for owner, _, names in (line.partition(":") for line in EVERYWHERE.strip().splitlines())
        for name in names.split()
    ]
    for names in found.values():
        names |= dict.fromkeys(everywhere, True) | dict.fromkeys(NOWHERE, False)
    return found


def run(column: str, code: str) -> str:
    """Runs code with the bindings of a column; TensorRT-RTX is installed, libraries and all."""
    if column in COLUMNS:
        return run_in(COLUMNS[column], code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def module(column: str) -> str:
    return "tensorrt" if column in COLUMNS else "tensorrt_rtx"


@pytest.mark.parametrize("column", list(table()))
def test_the_names_are_where_the_table_says(column: str) -> None:
    expected = table()[column]
    code = ASK.format(module=module(column), names=list(expected))
    there = set(json.loads(run(column, code)))
    assert {name: name in there for name in expected} == expected


@pytest.mark.parametrize("column", list(table()))
def test_the_version_is_the_one_asked_for(column: str) -> None:
    version = run(column, f"import {module(column)} as trt; print(trt.__version__)").strip()
    assert version == COLUMNS.get(column, version)
    assert version.startswith(column.removeprefix("rtx") + ".")


@pytest.mark.parametrize("column", list(table()))
def test_a_context_is_made_with_a_strategy(column: str) -> None:
    code = f"import {module(column)} as t; print(t.ICudaEngine.create_execution_context.__doc__)"
    said = run(column, code)
    assert "ExecutionContextAllocationStrategy = <ExecutionContextAllocationStrategy.STATIC" in said
    assert "runtime_config: " in said


@pytest.mark.parametrize("column", list(COLUMNS))
def test_integer_values_of_flags_are_not_to_be_relied_on(column: str) -> None:
    code = "import tensorrt as trt; print(int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))"
    assert run(column, code).strip() == ("0" if column == "11.4" else "1")


@pytest.mark.parametrize("column", list(COLUMNS))
def test_tactics_are_recorded_and_locked(column: str) -> None:
    editable, strict = "EDITABLE_TIMING_CACHE", "ERROR_ON_TIMING_CACHE_MISS"
    free, recorded, nothing, locked, other, rejected = json.loads(
        run(column, LOCK).splitlines()[-1]
    )
    assert free == [[], True, "accepted"]
    assert recorded == [[editable], False, "2 tactics recorded"]
    assert nothing[2] == "TensorRT recorded no tactics of this engine"
    assert locked == [[editable, strict], True, "2 tactics locked"]
    assert other[2] == "TensorRT chose other tactics than the locked ones, for 1 of 2 keys"
    assert rejected[2].startswith("TensorRT rejects the locked tactics")


@pytest.mark.parametrize("column", list(COLUMNS))
def test_the_backend_configures_a_build_with_names_that_exist(column: str) -> None:
    found = json.loads(run(column, CONFIGURE).splitlines()[-1])
    assert found == {
        "level": 3,
        "compatibility": "SAME_COMPUTE_CAPABILITY",
        "verbosity": "DETAILED",
        "pools": [["WORKSPACE", 8 * 2**30]],
        "sources": ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"],
        "set": [],  # no FP16: the network is strongly typed
        "cleared": ["TF32"],
        "preview": [] if column == "11.4" else ["PROFILE_SHARING_0806"],
    }
