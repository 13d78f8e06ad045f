"""The advisor: what it tries, what it keeps in higher precision, and when it gives up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from support.goldens import raises_golden
from support.networks import residual
from support.paths import DATA
from support.records import loose_tolerance

from builders.precision import Images, lower, ranges, rounded_in_fp32, search
from builders.precision.onnx_session import open_onnx
from builders.precision.qdq import Quantised, place
from builders.verify.metrics import compare_rows
from zoo.schema.floors import Tolerance, floors
from zoo.schema.measurements import BatchNumbers, Trial
from zoo.schema.targets import Precision, Rest
from zoo.util.errors import PrecisionError

RANDOM = np.random.default_rng(5)
ALL = RANDOM.standard_normal((12, 3, 16, 16)).astype(np.float32)
IMAGES = Images(all=ALL, evaluated=ALL[:6])
OTHERS = RANDOM.standard_normal((8, 3, 16, 16)).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def _entropy_once() -> Iterator[None]:
    """Computes each entropy range once: the same networks on the same images, 0.2 s for each."""
    compute: Any = ranges._entropy
    known: dict[tuple[bytes, float, float], float] = {}

    def remembered(counts: npt.NDArray[np.int64], peak: float, levels: float) -> float:
        key = counts.tobytes(), peak, levels
        if key not in known:
            known[key] = compute(counts, peak, levels)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "_entropy", remembered)
        yield


def spoiled(by: float) -> onnx.ModelProto:
    """The residual network with one channel of one convolution far above the others.

    Its weights have a step for each channel, but what it gives is quantised by one step.
    """
    model = residual()
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, axis, factor in (
        ("model.layer1.0.conv1.weight", 0, by),
        ("model.layer1.0.se.weight", 1, 1 / by),
        ("model.layer1.0.conv2.weight", 1, 1 / by),
    ):
        values = numpy_helper.to_array(weights[name]).copy()
        if axis == 0:
            values[0] *= factor
        else:
            values[:, 0] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return model


def tolerance(**changes: float) -> Tolerance:
    return loose_tolerance(**{"cosine": 0.98, "relative_error": 0.15, **changes})


def numbers(model: onnx.ModelProto, fp32: onnx.ModelProto) -> BatchNumbers:
    expected = open_onnx(fp32)(OTHERS)
    return compare_rows(open_onnx(rounded_in_fp32(model))(OTHERS), expected, expected)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_network_that_keeps_its_floors_is_lowered_whole(precision: Precision) -> None:
    made, advice = lower(residual(), precision, IMAGES, floors()[precision])
    onnx.checker.check_model(made, full_check=True)
    assert not advice.mixed
    assert advice.operators == 4
    [trial] = advice.tried
    assert trial.passed
    assert trial.worst_cosine > 0.999
    assert advice.islands == {"GlobalAveragePool sums over many elements": 2}
    assert numbers(made, residual()).worst_relative_error < 0.02


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_what_is_tried_is_what_is_made(rest: Rest) -> None:
    made, advice = lower(residual(), "int8", IMAGES, tolerance(), rest=rest)
    expected = open_onnx(residual())(IMAGES.evaluated)
    found = open_onnx(rounded_in_fp32(made))(IMAGES.evaluated)
    (tried,) = (trial for trial in advice.tried if trial.what == f"ranges by {advice.ranges}")
    numbers = compare_rows(found, expected, expected)
    assert tried.worst_relative_error == pytest.approx(numbers.worst_relative_error, rel=1e-5)


def test_all_ways_to_tell_ranges_are_tried_and_the_best_is_taken() -> None:
    made, advice = lower(residual(), "int8", IMAGES, tolerance())
    assert not advice.mixed
    assert [trial.what for trial in advice.tried] == [
        "ranges by max", "ranges by percentile", "ranges by mse", "ranges by entropy"
    ]  # fmt: skip
    best = min(advice.tried, key=lambda trial: trial.worst_relative_error)
    assert best.what == f"ranges by {advice.ranges}"
    assert best.passed
    assert numbers(made, residual()).worst_relative_error < 0.2


def test_the_operator_that_spoils_it_is_found_and_kept() -> None:
    model = spoiled(by=300.0)
    made, advice = lower(spoiled(by=300.0), "int8", IMAGES, tolerance(relative_error=0.1))
    assert advice.mixed
    assert advice.kept[0] == "layer1.0.conv2"
    assert 0 < advice.kept_work <= 0.5
    assert any(not trial.passed for trial in advice.tried)
    whole = min(one.worst_relative_error for one in advice.tried if not one.passed)
    assert numbers(made, model).worst_relative_error < whole / 2
    quantised = {node.name for node in made.graph.node if node.op_type == "QuantizeLinear"}
    assert "q_model.layer1.0.conv2.weight" not in quantised
    assert "q_model.layer1.0.conv1.weight" in quantised


def test_no_more_is_kept_than_is_needed() -> None:
    model = spoiled(by=300.0)
    _, advice = lower(model, "int8", IMAGES, tolerance(relative_error=0.1))
    fewer = [one for one in advice.tried if "operators kept" in one.what and not one.passed]
    kept = len(advice.kept)
    assert all(int(trial.what.split()[0]) < kept for trial in fewer)


def alike(count: int) -> list[Quantised]:
    """Operators with as much work each."""
    return [
        Quantised(
            node=f"n{i}", module=f"m{i}", activation="a", weight="w", axis=0, result=None, work=1
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("needed", [1, 2, 5, 6])
def test_bisection_finds_how_many_must_be_kept(
    needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = alike(12)
    monkeypatch.setattr(search, "rank_operators", lambda *_: ranked)
    monkeypatch.setattr(search, "_by_effect", lambda *_: ranked)

    def judge(kept: Any, what: str) -> Trial:
        return Trial(what=what, passed=len(kept) >= needed, misses=("a miss",))

    judge.keeps_most = False  # type: ignore[attr-defined]
    trials, nothing = search.Trials(operators=12), Any
    keep: Any = search._keep
    whole = judge((), "all of it")
    kept = keep(lambda kept: kept, nothing, nothing, "int8", whole, [], judge, trials)
    assert kept == {f"n{i}" for i in range(needed)}
    assert trials.kept == [f"m{i}" for i in range(needed)]


@pytest.mark.parametrize(
    ("operators", "words"),
    [
        (12, "keeping the 6 worst of its 12 operators in higher precision does not mend it (error "
             "with 6 kept), and more would be over 50% of the work"),
        (1, "keeping its worst operator in higher precision would be over 50% of the work"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_missed_with_all_kept_that_may_be(
    operators: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = alike(operators)
    monkeypatch.setattr(search, "rank_operators", lambda *_: ranked)
    monkeypatch.setattr(search, "_by_effect", lambda *_: ranked)

    def judge(kept: Any, what: str) -> Trial:
        misses = (f"batch 7: error with {len(kept)} kept",)
        return Trial(what=what, passed=False, misses=misses)

    judge.keeps_most = False  # type: ignore[attr-defined]
    trials, nothing = search.Trials(operators=operators), Any
    keep: Any = search._keep
    with pytest.raises(PrecisionError) as caught:
        keep(lambda kept: kept, nothing, nothing, "int8", judge((), "all"), [], judge, trials)
    expected = f"on calibration images, batch 7: error with 0 kept; {words}"
    assert caught.value.message == expected


def test_with_nothing_of_the_floors_to_use_up_as_much_is_kept_as_may_be() -> None:
    _, sparing = lower(residual(), "int8", IMAGES, tolerance())
    assert not sparing.mixed  # it meets its tolerance as a whole
    made, advice = lower(residual(), "int8", IMAGES, tolerance(), safety=0)
    assert advice.mixed
    assert 0 < advice.kept_work <= 0.5
    error = numbers(made, residual()).worst_relative_error
    assert error < min(one.worst_relative_error for one in sparing.tried)
    strict = tolerance(relative_error=1e-5, cosine=0.99999)
    with pytest.raises(PrecisionError):
        lower(residual(), "int8", IMAGES, strict, safety=0)


@pytest.mark.parametrize("name", ["cosine", "relative_error", "distance_error"])
def test_a_third_of_each_floor_stays_free(name: str) -> None:
    _, advice = lower(residual(), "int8", IMAGES, tolerance())
    whole = next(one for one in advice.tried if one.what == f"ranges by {advice.ranges}")
    for used, passes in ((0.6, True), (0.7, False)):
        found = getattr(whole, f"worst_{name}")
        floor = 1 - (1 - found) / used if name == "cosine" else found / used
        strict = tolerance(cosine=0.5, relative_error=0.9, distance_error=0.5)
        strict = strict.model_copy(update={name: floor})
        try:
            _, mixed = lower(residual(), "int8", IMAGES, strict)
        except PrecisionError:
            assert not passes
        else:
            assert mixed.mixed is not passes


def test_operators_beyond_the_budget_stay_behind_those_that_were_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "MOST_TRIED", 3)
    effects = {"n0": 0.1, "n1": 0.3, "n2": 0.2, "n3": 0.9, "n4": 0.8}
    every = set(effects)

    class Judge:
        def error(self, kept: set[str], what: str) -> float:
            [alone] = every - kept
            return effects[alone]

    by_effect: Any = search._by_effect
    ordered = by_effect(lambda kept: kept, alike(5), Judge())
    assert [one.node for one in ordered] == ["n1", "n2", "n0", "n3", "n4"]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_is_not_quantised_is_fp16_where_types_are_law(
    precision: Precision, half: bool
) -> None:
    made, advice = lower(
        residual(), precision, IMAGES, tolerance(), rest="fp16", low_images=half
    )  # fmt: skip
    onnx.checker.check_model(made, full_check=True)
    kinds = {one.name: one.data_type for one in made.graph.initializer}
    assert kinds["model.layer1.0.se.weight"] == onnx.TensorProto.FLOAT16
    assert advice.islands == {"GlobalAveragePool sums over many elements": 2}
    taken = made.graph.input[0].type.tensor_type.elem_type
    assert taken == (onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT)
    assert numbers(made, residual()).worst_relative_error < 0.2


def test_where_one_operator_is_all_the_work_there_is_no_stricter_network() -> None:
    toy = DATA / "toy.onnx"
    images = RANDOM.standard_normal((4, 3, 32, 32)).astype(np.float32)
    made = [
        lower(
            onnx.load(toy), "fp16", Images(all=images, evaluated=images), tolerance(), safety=safety
        )
        for safety in (0.65, 0)
    ]
    assert [advice.mixed for _, advice in made] == [False, False]
    assert made[0][0] == made[1][0]


def test_what_cannot_be_mended_is_refused_with_what_was_tried() -> None:
    strict = tolerance(relative_error=1e-5, cosine=0.99999)
    with pytest.raises(PrecisionError) as caught:
        lower(residual(), "int8", IMAGES, strict)
    tried = [Trial.model_validate(one) for one in caught.value.advice["tried"]]
    assert len(tried) == 5
    assert not any(trial.passed for trial in tried)
    assert "is needed" in caught.value.message


def test_a_network_without_operators_has_no_int8() -> None:
    model = residual()
    nodes = [node for node in model.graph.node if node.name in ("flat",)]
    del model.graph.node[:]
    nodes[0].input[0], nodes[0].output[0] = "images", "features"
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    assert place(model, "tensorrt").operators == ()
    with raises_golden(PrecisionError, "precision/nothing-to-quantise"):
        lower(model, "int8", IMAGES, tolerance())


def test_what_overflows_in_fp16_becomes_an_island_where_it_is() -> None:
    model = residual()
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, factor in (("model.stem.weight", 1e5), ("model.layer1.0.conv1.weight", 1e-5)):
        values = numpy_helper.to_array(weights[name]) * np.float32(factor)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    # The shortcut carries what the stem gives into the sum, large as it is.
    made, advice = lower(model, "fp16", IMAGES, tolerance())
    reasons = [reason for reason in advice.islands if reason.startswith("values reach")]
    assert reasons
    found = open_onnx(rounded_in_fp32(made))(OTHERS)
    assert np.isfinite(found).all()
