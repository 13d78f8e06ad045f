"""Searches for the best network of a precision that meets its tolerance.

Candidates are compared with the fp32 network on calibration images; the golden photos, which verify
the engine, are never used. If the whole network misses the tolerance, its operators are ranked by
the effect of each alone on the features, trying those with the largest rounding error first
(:mod:`noise`). Bisection over that ranking finds how many of the worst must stay in higher
precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from builders.precision.graph import Graph, name_nodes
from builders.precision.guards import guarding_values
from builders.precision.islands import choose_islands
from builders.precision.measure import measure
from builders.precision.noise import rank_operators
from builders.precision.onnx_session import open_onnx
from builders.precision.qdq import Placement, Quantised, Shortcut, is_unsigned, place, quantise
from builders.precision.ranges import Scale, activation_scales
from builders.precision.typed import rounded_in_fp32, to_low
from builders.recipe.precisions import MOST_KEPT, MOST_TRIED, RECIPES, SAFETIES, RangeMethod
from builders.verify.metrics import compare_rows
from builders.verify.misses import find_misses
from zoo.schema.floors import Tolerance
from zoo.schema.measurements import BatchNumbers, Trial
from zoo.schema.precisions import PRECISION_FACTS, Lowering
from zoo.schema.records import Advice
from zoo.schema.targets import Placing, Precision, Rest
from zoo.util.errors import PrecisionError

if TYPE_CHECKING:
    import onnx

Batch = npt.NDArray[np.float32]
_LARGE = 320  # pixels


@dataclass(frozen=True, kw_only=True)
class Images:
    """Calibration images, ready for the network.

    Attributes:
        all: ``(N, 3, H, W)``.
        evaluated: One crop of each photo, ``(N, 3, H, W)``, on which candidates are compared.
    """

    all: Batch
    evaluated: Batch


@dataclass
class Trials:
    """Results of the search so far; see :class:`zoo.schema.records.Advice`."""

    operators: int
    tried: list[Trial] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    kept_work: float = 0.0
    islands: dict[str, int] = field(default_factory=dict)
    ranges: str | None = None

    def advice(self) -> Advice:
        """Returns the results in the form that records hold."""
        return Advice.model_validate(vars(self))


def lower(
    model: onnx.ModelProto,
    precision: Precision,
    images: Images,
    tolerance: Tolerance,
    *,
    placing: Placing = Placing.TENSORRT,
    rest: Rest = Rest.FP32,
    low_images: bool = False,
    safety: float = SAFETIES[0],
    report: Callable[[str], None] = lambda note: None,
) -> tuple[onnx.ModelProto, Advice]:
    """Lowers a network's precision.

    Args:
        model: The normalised fp32 network; unnamed nodes get names.
        precision: A lowered precision.
        images: Calibration images.
        tolerance: The tolerance for engines of the precision.
        placing: The runtime for whose fusions the Q/DQ pairs of a quantised network are placed.
        rest: The type of the remaining layers of a quantised network: fp32 or fp16.
        low_images: Whether the network's input is fp16.
        safety: Share of each limit that calibration images may use up. With 0, as many operators
            as allowed stay in higher precision.
        report: Called with progress messages.

    Raises:
        PrecisionError: No network meets the tolerance with enough of it in the precision.
    """
    name_nodes(model)
    placement = place(model, placing)
    lowering = PRECISION_FACTS[precision].lowering
    match lowering:
        case Lowering.QUANTISED:
            placement = placement.without_values(guarding_values(Graph(model)))
            if not placement.operators:
                raise PrecisionError("no operator of this network can be quantised", {})
            evaluator = _Evaluator(model, images.evaluated, tolerance, safety, report)
            return _lower_quantised(
                model, precision, placement, images, evaluator, rest, low_images=low_images
            )
        case Lowering.TYPED:
            evaluator = _Evaluator(model, images.evaluated, tolerance, safety, report)
            return _lower_typed(
                model, precision, placement, images, evaluator, low_images=low_images
            )
        case Lowering.NONE:
            raise PrecisionError(f"{precision} is the export's precision: nothing lowers it", {})
        case _:
            assert_never(lowering)


def _lower_quantised(
    model: onnx.ModelProto,
    precision: Precision,
    placement: Placement,
    images: Images,
    evaluator: _Evaluator,
    rest: Rest,
    *,
    low_images: bool,
) -> tuple[onnx.ModelProto, Advice]:
    """Makes a quantised network: chooses the best ranges, then the operators to keep in fp32."""
    trials = Trials(operators=len(placement.operators) + len(placement.shortcuts))
    evaluator.report("measuring activations")
    measured = measure(model, _pieces(images.all), placement.activations)

    def quantised(
        scales: dict[str, Scale], kept: Collection[str] = (), *, low_images: bool = False
    ) -> onnx.ModelProto:
        network = quantise(model, placement.without(kept), precision, scales)
        match rest:
            case Rest.FP32:
                return network
            case Rest.FP16:
                islands = choose_islands(network, measured, Precision.FP16)
                trials.islands = dict(Counter(islands.values()))
                return to_low(network, Precision.FP16, islands.keys(), low_images=low_images)
            case _:
                assert_never(rest)

    scales, whole = _best_ranges(quantised, precision, placement, measured, evaluator, trials)
    make = partial(quantised, scales)
    ranked_on = _pieces(_few(images.evaluated))
    kept = _keep(make, model, placement, precision, whole, ranked_on, evaluator, trials, scales)
    return make(kept, low_images=low_images), trials.advice()


def _lower_typed(
    model: onnx.ModelProto,
    low: Precision,
    placement: Placement,
    images: Images,
    evaluator: _Evaluator,
    *,
    low_images: bool,
) -> tuple[onnx.ModelProto, Advice]:
    """Makes a network in a narrower type: islands by their values, then operators kept."""
    placement = replace(placement, shortcuts=())  # they matter to quantised networks only
    trials = Trials(operators=len(placement.operators))
    evaluator.report("measuring activations")
    measured = measure(model, _pieces(images.evaluated))  # peaks show in one crop of each photo
    islands = choose_islands(model, measured, low)
    trials.islands = dict(Counter(islands.values()))

    def typed(kept: Collection[str]) -> onnx.ModelProto:
        return to_low(_copy(model), low, {*islands, *kept})

    ranked_on = _pieces(_few(images.evaluated))
    whole = evaluator(typed(()), f"all of it {low}")
    trials.tried.append(whole)
    kept = _keep(typed, model, placement, low, whole, ranked_on, evaluator, trials)
    return to_low(model, low, {*islands, *kept}, low_images=low_images), trials.advice()


class _Evaluator:
    """Compares networks with the fp32 network on the images for comparison.

    Attributes:
        keeps_most: Whether to keep as many operators in higher precision as allowed.
        report: Called with progress messages.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        images: Batch,
        tolerance: Tolerance,
        safety: float,
        report: Callable[[str], None],
    ) -> None:
        self.keeps_most = safety == 0
        safety = safety or SAFETIES[0]
        self._images = images
        self._expected = run(model, images)
        # Leave part of each limit for other photos and for the engine's own rounding.
        self._tolerance = tolerance.scaled(safety)
        self.report = report

    def __call__(self, model: onnx.ModelProto, what: str) -> Trial:
        """Returns how far a network's features are from those of the fp32 network."""
        self.report(f"trying {what}")
        numbers = compare_rows(run(model, self._images), self._expected, self._expected)
        misses = find_misses(numbers, self._tolerance)
        stated = numbers.model_dump()
        stated.pop("photos", None)
        return Trial.model_validate(
            {"what": what, **stated, "passed": not misses, "misses": misses}
        )

    def error(self, model: onnx.ModelProto, what: str) -> float:
        """Returns the worst relative error of a few images' features."""
        self.report(f"trying {what}")
        images = _few(self._images)
        few = self._expected[: len(images)]
        numbers = compare_rows(run(model, images), few, few)
        return _error_of(numbers)


def _error_of(numbers: BatchNumbers) -> float:
    """Returns the worst relative error; infinity where features are not finite."""
    error = numbers.worst_relative_error
    return float("inf") if error is None else error


def run(model: onnx.ModelProto, images: Batch) -> npt.NDArray[np.float32]:
    """Returns an ONNX's features of images, ``(N, feature_dim)``."""
    features = open_onnx(rounded_in_fp32(model))
    return np.concatenate([features(piece) for piece in _pieces(images)])


def _at_once(images: Batch) -> int:
    """Returns how many images' activations memory should hold."""
    return 2 if images.shape[-1] <= _LARGE else 1


def _pieces(images: Batch) -> list[Batch]:
    """Splits images into batches whose activations fit into memory."""
    step = _at_once(images)
    return [images[at : at + step] for at in range(0, len(images), step)]


def _few(images: Batch) -> Batch:
    """Returns the images that operators are tried on one by one: few, as there are many trials."""
    return images[: 2 * _at_once(images)]


def _best_ranges(
    make: Callable[[dict[str, Scale]], onnx.ModelProto],
    precision: Precision,
    placement: Placement,
    measured: Any,
    evaluator: _Evaluator,
    trials: Trials,
) -> tuple[dict[str, Scale], Trial]:
    """Tries each method of choosing ranges; returns the ranges of the best, and its trial."""
    best: tuple[float, RangeMethod, dict[str, Scale], Trial] | None = None
    unsigned = is_unsigned(placement.runtime)
    for method in RECIPES[precision].ranges:
        scales = activation_scales(measured, method, precision, unsigned=unsigned)
        numbers = evaluator(make(scales), f"ranges by {method}")
        trials.tried.append(numbers)
        error = _error_of(numbers)
        if best is None or error < best[0]:
            best = (error, method, scales, numbers)
    assert best is not None
    trials.ranges = best[1]
    return best[2], best[3]


def _keep(
    make: Callable[[Collection[str]], onnx.ModelProto],
    model: onnx.ModelProto,
    placement: Placement,
    rounding: Precision,
    whole: Trial,
    ranked_on: list[Batch],
    evaluator: _Evaluator,
    trials: Trials,
    scales: dict[str, Scale] | None = None,
) -> set[str]:
    """Finds the operators that must stay in higher precision and records them in ``trials``.

    Args:
        make: Makes the network with some operators kept in higher precision.
        model: The fp32 network.
        placement: Its operators.
        rounding: The precision of the others.
        whole: The trial of the network that keeps none.
        ranked_on: Images that operators are ranked on.
        evaluator: Tries networks.
        trials: Takes what is tried.
        scales: Ranges of activations, for a quantised precision.

    Returns:
        The names of their nodes.

    Raises:
        PrecisionError: Keeping as many as allowed is not enough.
    """
    if whole.passed and not evaluator.keeps_most:
        return set()
    candidates = rank_operators(model, placement, rounding, ranked_on, scales)
    ranked = _by_effect(make, candidates, evaluator)
    work = [operator.work if isinstance(operator, Quantised) else 0 for operator in ranked]
    shares = np.cumsum(work) / sum(work)
    most = int(np.searchsorted(shares, MOST_KEPT, side="right"))

    def worst(count: int) -> set[str]:
        return {operator.node for operator in ranked[:count]}

    def passes(count: int) -> bool:
        numbers = evaluator(make(worst(count)), f"{count} of {len(ranked)} operators kept")
        trials.tried.append(numbers)
        return numbers.passed

    if most == 0 or not passes(most):
        if whole.passed:
            return set()
        if most == 0:
            left = f"keeping its worst operator in higher precision would be over {MOST_KEPT:.0%}"
        else:
            _, _, miss = trials.tried[-1].misses[0].partition(": ")
            left = (
                f"keeping the {most} worst of its {len(ranked)} operators in higher precision does "
                f"not mend it ({miss}), and more would be over {MOST_KEPT:.0%}"
            )
        raise PrecisionError(
            f"on calibration images, {whole.misses[0]}; {left} of the work",
            trials.advice().model_dump(mode="json"),
        )
    low, high = 0, most  # `low` misses, `high` passes
    while high - low > 1 and not evaluator.keeps_most:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    trials.kept = [operator.module for operator in ranked[:high]]
    trials.kept_work = round(float(shares[high - 1]), 4)
    return worst(high)


def _by_effect(
    make: Callable[[Collection[str]], onnx.ModelProto],
    candidates: list[Quantised | Shortcut],
    evaluator: _Evaluator,
) -> list[Quantised | Shortcut]:
    """Orders operators by the effect of each alone on the features, largest first.

    Args:
        make: Returns the network that keeps the given nodes in higher precision.
        candidates: Operators, largest rounding error first. The first :data:`MOST_TRIED` are
            tried; the remaining ones follow in their order.
        evaluator: Measures the error of a network's features.
    """
    names = {operator.node for operator in candidates}
    tried = candidates[:MOST_TRIED]
    errors = {
        operator.node: evaluator.error(
            make(names - {operator.node}), f"{operator.module} alone, {number} of {len(tried)}"
        )
        for number, operator in enumerate(tried, 1)
    }
    ordered = sorted(tried, key=lambda operator: errors[operator.node], reverse=True)
    return [*ordered, *candidates[MOST_TRIED:]]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
