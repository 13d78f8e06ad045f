"""Studies: what a network computes in, what overflows, and what the tables say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models import LITE
from support.paths import DATA, MANIFESTS

from benchmarks.studies import speed
from benchmarks.studies.__main__ import main, study
from benchmarks.studies.modelopt import not_above
from benchmarks.studies.result import Row, Studies, look, quantised_inputs, share
from benchmarks.studies.subject import Subject
from benchmarks.studies.table import to_markdown
from benchmarks.studies.ways import WAYS, Way
from builders.precision import to_low
from builders.precision.measure import measure
from builders.precision.onnx_session import open_onnx
from builders.precision.qdq import place, quantise
from builders.precision.ranges import activation_scales
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import load_manifest
from zoo.schema.precisions import Precision
from zoo.util.errors import PrecisionError, UsageError

TOY = DATA / "toy.onnx"  # a convolution, a ReLU and a mean


def subject(folder: Path, grown: float = 1.0) -> Subject:
    """The toy as a subject; its weights may be grown until fp16 does not hold its values."""
    manifest, model = load_manifest(MANIFESTS / f"{LITE}.toml"), onnx.load(TOY)
    [weights] = model.graph.initializer
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * grown, weights.name))
    onnx.save(model, folder / "fp32.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    features = open_onnx(model)(normalise(images, manifest.preprocess.plain))
    np.savez(folder / "golden.npz", images=images, features=features)
    return Subject(manifest=manifest, folder=folder, seeded=True, photos=3)


def test_what_computes_in_a_precision_is_counted(tmp_path: Path) -> None:
    whole = subject(tmp_path)
    assert share(to_low(whole.fp32(), "fp16", {"mean"}), "fp16") == (3, 2, 1.0)
    assert share(to_low(whole.fp32(), "fp16", {"conv"}), "fp16") == (3, 2, 0.0)
    model, placement = whole.fp32(), place(whole.fp32(), "tensorrt")
    measured = measure(model, [whole.golden()[0]], placement.activations)
    quantised = quantise(
        model, placement, Precision.INT8, activation_scales(measured, "max", Precision.INT8)
    )
    assert share(quantised, "int8") == (3, 1, 1.0)
    assert quantised_inputs(quantised) == {"Conv": 1}


def test_what_is_multiplied_behind_an_island_is_counted() -> None:
    of_images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 8])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Softmax", ["images"], ["s"], name="softmax"),
        helper.make_node("MatMul", ["s", "w"], ["features"], name="product"),
    ]
    weights = numpy_helper.from_array(np.ones((8, 2), np.float32), "w")
    graph = helper.make_graph(nodes, "g", [of_images], [features], [weights])
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph), strict_mode=True)
    assert share(to_low(model, "fp16", {"softmax"}), "fp16") == (2, 1, 1.0)


def test_a_sum_that_overflows_is_seen_where_no_value_does(tmp_path: Path) -> None:
    whole = subject(tmp_path, grown=100.0)  # values reach some hundreds, and 900 are summed
    row = look(whole, "fp16", ".half()", to_low(whole.fp32(), "fp16", set()))
    assert row.bad_rows == 0
    assert row.worst_cosine is not None
    assert row.worst_cosine > 0.9999
    assert row.weights_error is not None
    assert 0 < row.weights_error < 2**-11  # half a step of fp16
    assert row.largest_value < 65504 < row.largest_sum
    kept = look(whole, "fp16", "ours", to_low(whole.fp32(), "fp16", {"mean"}))
    assert kept.largest_sum == 0


def test_an_overflow_is_a_miss_and_stands_out(tmp_path: Path) -> None:
    whole = subject(tmp_path, grown=10000.0)
    row = look(whole, "fp16", ".half()", to_low(whole.fp32(), "fp16", set()))
    assert row.bad_rows == 3
    found = Studies(
        model="toy", precision="fp16", seeded=True, photos=3, rows=(row, Row(way="b", note="no"))
    )
    again = Studies.model_validate_json(found.model_dump_json())  # infinity and all
    table = to_markdown("fp16", [again], ["toy", "other"])
    assert " 3 rows |  |  |" in table
    assert "| **inf** |" in table
    assert "misses 1 floor" in table
    assert "Not run: other." in table


def test_a_study_goes_on_where_it_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cast(of: Subject) -> tuple[onnx.ModelProto, str]:
        return to_low(of.fp32(), "fp16", set()), "a note"

    def none(of: Subject) -> tuple[onnx.ModelProto, str]:
        raise PrecisionError("it would not do")

    ways = {"one": Way(own=cast), "other": Way(others=lambda of, by: cast(of)), "no": Way(own=none)}
    monkeypatch.setitem(WAYS, "fp16", ways)
    whole, kept, taken = subject(tmp_path), tmp_path / "fp16.json", []

    def keep(way: str, model: onnx.ModelProto) -> None:
        taken.append(way)

    tried = study(whole, "fp16", list(ways), None, str, keep, kept)
    assert [(row.way, row.note) for row in tried.rows] == [
        ("one", "a note"),
        ("no", "none: it would not do"),
    ]  # the other needs ModelOpt
    assert Studies.model_validate_json(kept.read_text()) == tried
    before = tried.model_copy(update={"rows": tried.rows[1:]})
    again = study(whole, "fp16", list(ways), None, str, keep, kept, before)
    assert [row.way for row in again.rows] == ["no", "one"]
    assert taken == ["one", "one"]


def test_kept_networks_say_what_they_are_and_why_they_were_not_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    preprocess = load_manifest(MANIFESTS / f"{LITE}.toml").preprocess.plain
    speed.keep(folder, preprocess, "int8", "our placement, max", onnx.load(TOY))
    speed.keep(folder, preprocess, "fp16", "ours", onnx.load(TOY))
    assert (folder / "int8-our-placement-max.onnx").is_file()
    monkeypatch.setattr(speed, "local_archs", list)
    monkeypatch.setattr(sys, "argv", ["speed", "time", str(tmp_path)])
    assert speed.main() == 1
    assert "NVIDIA GPU and TensorRT" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["speed", "table", str(tmp_path)])
    assert speed.main() == 0
    assert (
        "| toy | int8 | our placement, max |  |  |  |  |  |  | an NVIDIA" in capsys.readouterr().out
    )
    monkeypatch.setattr(sys, "argv", ["speed", "table", str(tmp_path / "none")])
    assert speed.main() == UsageError.exit_code
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_speeds_stand_beside_our_fp16() -> None:
    def timed(precision: speed.Precision, way: str, ms: float) -> speed.Timed:
        return speed.Timed(
            model="toy",
            precision=precision,
            way=way,
            parameters=1,
            preprocess=load_manifest(MANIFESTS / f"{LITE}.toml").preprocess.plain,
            seconds=7.4,
            engine_bytes=2**21,
            worst_cosine=0.99,
            rows=({"batch": 256, "latency_ms": ms},),
            machine={"gpu": {"name": "a card"}},
            runtime="TensorRT 1",
        )

    table = speed.to_markdown([timed("int8", "ours", 2.0), timed("fp16", "ours", 3.0)])
    assert "| toy | int8 | ours | 256 | 2 | 1.50 | 0.990000 | 7 | 2.0 |  |" in table
    assert table.endswith("TensorRT 1, a card.")


def test_the_published_speeds_are_those_of_their_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = MANIFESTS.parent / "docs/results/h200-trt8.6/int8-placements"
    names = ("resnet50", "mobilenetv2_100", "vit_base_patch16_224")
    monkeypatch.setattr(sys, "argv", ["speed", "table", *(str(records / name) for name in names)])
    assert speed.main() == 0
    assert capsys.readouterr().out in (records / "README.md").read_text(encoding="utf-8")


def test_an_engine_is_looked_at_by_its_worst_row(tmp_path: Path) -> None:
    toy = subject(tmp_path)
    preprocess = toy.manifest.preprocess.plain
    right = open_onnx(onnx.load(TOY))

    class Engine:
        def __init__(self, wrong: float) -> None:
            self.wrong = wrong

        def features(self, images: np.ndarray) -> np.ndarray:
            found = right(images)
            found[1, 0] += self.wrong
            return found

    def worst(wrong: float) -> float | None:
        return speed.worst_cosine(Engine(wrong), tmp_path / "golden.npz", preprocess)

    assert worst(0) == pytest.approx(1)
    found = worst(10.0)
    assert found is not None
    assert found < 0.99
    assert worst(float("nan")) is None


def test_an_unknown_dialect_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["studies", "int8", "--dialect", "opset-9"])
    assert main() == UsageError.exit_code
    assert "torchscript-17" in capsys.readouterr().err


def test_what_modelopt_makes_gets_its_opset_back() -> None:
    """A mean's axes are an input since opset 18, which TensorRT 8.6 does not read."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])
    values = {"scale": np.float32(0.1), "zero": np.int8(0), "axes": np.array([2, 3])}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["rounded"]),
        helper.make_node("ReduceMean", ["rounded", "axes"], ["features"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "g", [images], [features],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )  # fmt: skip
    raised = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    source = onnx.load(TOY)
    assert source.opset_import[0].version == 17

    back = not_above(raised, source)
    assert back.opset_import[0].version == 17
    mean = next(node for node in back.graph.node if node.op_type == "ReduceMean")
    assert len(mean.input) == 1
    assert {one.name: one for one in mean.attribute}["axes"].ints == [2, 3]
    noise = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)
    assert np.array_equal(open_onnx(back)(noise), open_onnx(raised)(noise))
    assert not_above(source, raised) is source
