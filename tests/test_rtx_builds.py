"""TensorRT-RTX builds in a worker process, for GPUs that are not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.installed import installed_inputs

from builders.executors import LocalExecutor, Outcome
from builders.job import BuildJob, BuildOutput
from builders.progress import silent
from zoo.errors import JobError
from zoo.key import BuildInputs
from zoo.repository import Repository
from zoo.runtime.header import read_header
from zoo.stores import LocalStore


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A convolution, a clip and a mean: small, and what every backbone is made of."""
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("ReduceMean", ["r", "axes"], ["features"], name="mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "toy.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(made), path)
    return path


def build_in_worker(onnx_file: Path, asked: BuildInputs, folder: Path) -> Outcome:
    """Polygraphy serves one of the two TensorRTs in a process, so RTX builds get their own."""
    repository = Repository(LocalStore(folder / "store"))
    job = BuildJob(
        inputs=asked,
        onnx=repository.add_blob(onnx_file),
        parameters=216,
        prove=None,
        store=repository.store.url,
    )
    output = folder / "output"
    output.mkdir()
    return LocalExecutor().run(job, output, silent)


@pytest.mark.parametrize("archs", [("sm86",), ("sm75",), ("sm120", "sm80", "sm86", "sm89")])
def test_rtx_builds_for_gpus_that_are_not_here(
    archs: tuple[str, ...], toy: Path, tmp_path: Path
) -> None:
    asked = installed_inputs("rtx", *archs)
    outcome = build_in_worker(toy, asked, tmp_path)
    assert isinstance(outcome.result, BuildOutput)
    assert outcome.result.verification is None
    assert not outcome.result.precision_proven
    found = read_header((tmp_path / "output" / "engine").read_bytes())
    assert set(found.archs or ()) == set(archs)
    assert found.version == asked.toolchain.version
    assert found.length == (tmp_path / "output" / "engine").stat().st_size


def test_rtx_says_what_it_does_not_build(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(JobError, match="does not build"):
        build_in_worker(tmp_path / "bad.onnx", installed_inputs("rtx", "sm86"), tmp_path)
    assert not (tmp_path / "output" / "engine").exists()


@pytest.mark.parametrize(
    ("precision", "words"), [("fp16", "1 FLOAT"), ("int8", "quantises nothing")]
)
def test_rtx_builds_nothing_under_the_name_of_another_precision(
    precision: str, words: str, toy: Path, tmp_path: Path
) -> None:
    asked = installed_inputs("rtx", "sm86", precision=precision)
    with pytest.raises(JobError, match=f"an engine named {precision} (.|\n)*{words}"):
        build_in_worker(toy, asked, tmp_path)
    assert not (tmp_path / "output" / "engine").exists()
