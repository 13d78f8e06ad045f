"""Reads the precision that an engine runs in from TensorRT's inspector JSON. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_never

from zoo.schema.measurements import LayerSummary
from zoo.schema.precisions import PRECISION_FACTS, Lowering, Precision
from zoo.util.loading import parse_json
from zoo.util.strenum import StrEnum

_WEIGHTS = {facts.stated: precision for precision, facts in PRECISION_FACTS.items()}
_PROVEN_SHARE = 0.9  # of the weights must be in layers that state their type


class Proof(StrEnum):
    """Whether an engine runs in the precision of its name."""

    PROVEN = "proven"
    UNPROVEN = "unproven"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether an engine runs in the precision of its name, judging by its layers and size.

    Attributes:
        proof: Whether it does.
        reason: The evidence.
    """

    proof: Proof
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """Limits for an engine of a precision.

    Attributes:
        least_share: Fraction of the stated weights that must be in the precision, or the engine
            contradicts its name; 0 if a single weight is enough.
        proven_share: Fraction of all weights that confirms the precision if layers state it.
        most_bytes: Upper limit of the plan's bytes per weight, as a multiple of the bytes of a
            weight in the precision.
    """

    least_share: float
    proven_share: float
    most_bytes: float


def _bounds_of(precision: Precision) -> _Bounds:
    lowering = PRECISION_FACTS[precision].lowering
    match lowering:
        case Lowering.NONE:
            return _Bounds(least_share=0.5, proven_share=_PROVEN_SHARE, most_bytes=float("inf"))
        case Lowering.TYPED:
            return _Bounds(least_share=0.5, proven_share=_PROVEN_SHARE, most_bytes=1.25)
        case Lowering.QUANTISED:
            # Part of such a network may stay in higher precision.
            return _Bounds(least_share=0, proven_share=0.5, most_bytes=1.25)
        case _:
            assert_never(lowering)


def read(text: str) -> dict[str, Any]:
    """Parses the inspector's JSON; TensorRT 8.6 leaves control characters in it unescaped."""
    parsed: dict[str, Any] = parse_json(text, strict=False)
    return parsed


def summarise(text: str) -> LayerSummary:
    """Summarises the inspector's JSON.

    Args:
        text: Output of ``get_engine_information`` with detailed profiling verbosity.
    """
    layers = [layer for layer in read(text).get("Layers", []) if isinstance(layer, dict)]
    weights: Counter[str] = Counter()
    weighted: Counter[str] = Counter()
    tensors: Counter[str] = Counter()
    silent = []
    last = 0
    for layer in layers:
        name, kind = str(layer.get("Name")), str(layer.get("LayerType"))
        last = max([last, *map(int, re.findall(r"\[profile (\d+)\]$", name))])
        stated = layer.get("Weights")
        if isinstance(stated, dict) and stated.get("Count"):
            of_type = _WEIGHTS.get(stated.get("Type", ""), "other")
            weights[of_type] += int(stated["Count"])
            weighted[of_type] += 1
        elif kind == "Myelin" or name.startswith("{ForeignNode"):
            silent.append(name[:200])
        for tensor in layer.get("Inputs", []):
            if isinstance(tensor, dict):
                tensors[_type_of(str(tensor.get("Format/Datatype", "")))] += 1
    return LayerSummary(
        profiles=last + 1,
        layers=dict(Counter(str(layer.get("LayerType")) for layer in layers).most_common()),
        weights=dict(weights),
        weighted=dict(weighted),
        tensors=dict(tensors),
        silent=tuple(silent),
    )


def judge(
    summary: LayerSummary,
    precision: Precision,
    parameters: int,
    plan_size: int,
    *,
    kept: int = 0,
) -> Judgement:
    """Determines whether an engine runs in the precision of its name.

    Convolutions and matrix products state the type and number of their weights. Myelin's fused
    nodes do not; for those the size of the plan is the evidence, since it is mostly weights.

    Args:
        summary: The engine's layers.
        precision: The precision of its name.
        parameters: Number of the network's weights.
        plan_size: Size of the engine in bytes.
        kept: Number of layers with weights that must stay fp32 in an engine below fp32.
    """
    weights = {name: count // summary.profiles for name, count in summary.weights.items()}
    counted = sum(weights.values())
    own = weights.get(precision, 0)
    bounds = _bounds_of(precision)
    least = max(1, 0 if kept else bounds.least_share * counted)
    if counted and own < least:
        return _contradicted(
            f"{own:,} of the {counted:,} weights whose type layers state are {precision}"
        )
    layers = {name: count // summary.profiles for name, count in summary.weighted.items()}
    free = sum(layers.values()) - kept
    if kept and layers.get(precision, 0) < 0.5 * free:
        return _contradicted(
            f"{layers.get(precision, 0)} of the {free} layers that state their weights and need "
            f"not stay fp32 are {precision}"
        )
    fp32 = weights.get(Precision.FP32, 0)
    if kept and not fp32 and not summary.silent:
        return _contradicted(f"{kept} layers with weights must stay fp32, but none does")
    if kept and own + fp32 >= _PROVEN_SHARE * parameters:
        return _proven(
            f"of {parameters:,} weights, {own:,} are stated as {precision} by their layers and "
            f"{fp32:,} as fp32; {kept} layers must stay fp32"
        )
    if own >= bounds.proven_share * parameters:
        return _proven(
            f"{own:,} of {parameters:,} weights are stated as {precision} by their layers"
        )
    size = PRECISION_FACTS[precision].bytes
    per_weight = plan_size / max(1, parameters)
    # Enough bytes for this precision, too few for one with more bits.
    fits = size <= per_weight <= bounds.most_bytes * size
    if summary.silent and own >= _PROVEN_SHARE * counted and fits:
        return _proven(
            f"fused layers do not state their weights; the plan has {per_weight:.2f} bytes per "
            f"weight ({parameters:,} weights)"
        )
    reason = (
        f"layers state {own:,} of {parameters:,} weights as {precision}; the plan has "
        f"{per_weight:.2f} bytes per weight"
    )
    return Judgement(proof=Proof.UNPROVEN, reason=reason)


def _proven(reason: str) -> Judgement:
    return Judgement(proof=Proof.PROVEN, reason=reason)


def _contradicted(reason: str) -> Judgement:
    return Judgement(proof=Proof.CONTRADICTED, reason=reason)


def _type_of(text: str) -> str:
    # The narrowest first: fp32's pattern also matches the name of bfloat16.
    for precision in sorted(Precision, key=lambda member: PRECISION_FACTS[member].bits):
        if re.search(PRECISION_FACTS[precision].pattern, text, re.IGNORECASE):
            return precision
    return "other"
