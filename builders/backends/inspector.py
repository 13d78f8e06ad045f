"""What an engine says it runs in: TensorRT's inspector JSON, read. Pure functions."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_never

from zoo.schema.precisions import PRECISION_FACTS, Precision
from zoo.util.strenum import StrEnum

_WEIGHTS = {facts.stated: precision for precision, facts in PRECISION_FACTS.items()}
_PROVEN_SHARE = 0.9  # of the weights, that the layers which say their type must cover


class Proof(StrEnum):
    """Whether an engine runs in the precision of its name."""

    PROVEN = "proven"
    UNPROVEN = "unproven"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What an engine's layers and size say of its precision.

    Attributes:
        proof: Whether it runs in the precision of its name.
        reason: What that was told from.
    """

    proof: Proof
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """What must be true of an engine of a precision.

    Attributes:
        least_share: Of the weights that layers state, those below which the name is wrong; 0 for
            any one weight at all.
        proven_share: Of all weights, those stated that prove it.
        most_bytes: Of the plan for each weight, in multiples of the precision's own.
    """

    least_share: float
    proven_share: float
    most_bytes: float


def _bounds_of(precision: Precision) -> _Bounds:
    match precision:
        case Precision.FP32:
            return _Bounds(least_share=0.5, proven_share=_PROVEN_SHARE, most_bytes=float("inf"))
        case Precision.FP16 | Precision.BF16:
            return _Bounds(least_share=0.5, proven_share=_PROVEN_SHARE, most_bytes=1.25)
        case Precision.INT8:
            # Part of an int8 network may stay in higher precision.
            return _Bounds(least_share=0, proven_share=0.5, most_bytes=1.25)
        case _:
            assert_never(precision)


def read(text: str) -> dict[str, Any]:
    """Reads an inspector's JSON; that of 8.6 has bare control characters in its metadata."""
    parsed: dict[str, Any] = json.loads(text, strict=False)
    return parsed


def summarise(text: str) -> dict[str, Any]:
    """Summarises an inspector's JSON.

    Args:
        text: As ``get_engine_information`` gives it, with detailed profiling verbosity.

    Returns:
        ``profiles``: how many optimisation profiles have layers of their own; ``layers``: how many
        of each type; ``weights``: elements by precision, of the layers that tell, in all profiles;
        ``weighted``: how many layers those are;
        ``tensors``: inputs of layers by precision (with dynamic shapes 8.6 does not say);
        ``silent``: names of layers that hold weights and do not tell (Myelin's fused nodes).
    """
    layers = [one for one in read(text).get("Layers", []) if isinstance(one, dict)]
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
    return {
        "profiles": last + 1,
        "layers": dict(Counter(str(layer.get("LayerType")) for layer in layers).most_common()),
        "weights": dict(weights),
        "weighted": dict(weighted),
        "tensors": dict(tensors),
        "silent": silent,
    }


def judge(
    summary: dict[str, Any],
    precision: Precision,
    parameters: int,
    plan_size: int,
    *,
    kept: int = 0,
) -> Judgement:
    """Says whether an engine runs in the precision of its name.

    Convolutions and matrix products state the type and number of their weights. What Myelin fuses
    does not: there the size of the plan speaks, for weights are most of it.

    Args:
        summary: As :func:`summarise` gives it.
        precision: Of its name.
        parameters: Number of weights of the network.
        plan_size: Bytes of the engine.
        kept: How many layers with weights are to stay fp32 in an engine below it.

    Returns:
        Whether that is proven, and what it was told from.
    """
    weights = {name: count // summary["profiles"] for name, count in summary["weights"].items()}
    counted = sum(weights.values())
    own = weights.get(precision, 0)
    bounds = _bounds_of(precision)
    least = max(1, 0 if kept else bounds.least_share * counted)
    if counted and own < least:
        return _contradicted(f"of {counted:,} weights that layers state, {own:,} are {precision}")
    layers = {name: count // summary["profiles"] for name, count in summary["weighted"].items()}
    free = sum(layers.values()) - kept
    if kept and layers.get(precision, 0) < 0.5 * free:
        return _contradicted(
            f"of {free} layers that state their weights and need not stay fp32, "
            f"{layers.get(precision, 0)} are {precision}"
        )
    fp32 = weights.get(Precision.FP32, 0)
    if kept and not fp32 and not summary["silent"]:
        return _contradicted(f"{kept} layers with weights are to stay fp32, and none does")
    if kept and own + fp32 >= _PROVEN_SHARE * parameters:
        return _proven(
            f"of {parameters:,} weights {own:,} are stated as {precision} by their layers and "
            f"{fp32:,} as fp32, where {kept} layers are to stay so"
        )
    if own >= bounds.proven_share * parameters:
        return _proven(
            f"{own:,} of {parameters:,} weights are stated as {precision} by their layers"
        )
    size = PRECISION_FACTS[precision].bytes
    per_weight = plan_size / max(1, parameters)
    # Enough bytes for this precision, and too few for one with more bits.
    fits = size <= per_weight <= bounds.most_bytes * size
    if summary["silent"] and own >= _PROVEN_SHARE * counted and fits:
        return _proven(
            f"fused layers do not state their weights; the plan has {per_weight:.2f} bytes for "
            f"each of {parameters:,} weights"
        )
    reason = (
        f"layers state {own:,} of {parameters:,} weights as {precision}, and the plan has "
        f"{per_weight:.2f} bytes for each"
    )
    return Judgement(proof=Proof.UNPROVEN, reason=reason)


def _proven(reason: str) -> Judgement:
    return Judgement(proof=Proof.PROVEN, reason=reason)


def _contradicted(reason: str) -> Judgement:
    return Judgement(proof=Proof.CONTRADICTED, reason=reason)


def _type_of(text: str) -> str:
    # The narrowest first: fp32's pattern also matches what bfloat16 is called.
    for precision in sorted(Precision, key=lambda one: PRECISION_FACTS[one].bits):
        if re.search(PRECISION_FACTS[precision].pattern, text, re.IGNORECASE):
            return precision
    return "other"
