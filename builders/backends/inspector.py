"""What an engine says it runs in: TensorRT's inspector JSON, read. Pure functions."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from zoo.target import Precision

_TYPES = (
    ("int8", r"int8"),
    ("bf16", r"bf16|bfloat"),
    ("fp16", r"fp16|half"),
    ("fp32", r"fp32|float"),
)
_WEIGHTS = {"Half": "fp16", "BFloat16": "bf16", "Float": "fp32", "Int8": "int8"}
_PROVEN_SHARE = 0.9  # of the weights, that the layers which say their type must cover


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
) -> tuple[bool, str]:
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
        Whether that is proven, and what it was told from. A contradiction starts with ``no:``.
    """
    weights = {name: count // summary["profiles"] for name, count in summary["weights"].items()}
    counted = sum(weights.values())
    own = weights.get(precision, 0)
    # Of an int8 network part may be kept in higher precision; of others that was asked for.
    least = 1 if precision == "int8" or kept else 0.5 * counted
    if counted and own < least:
        return False, f"no: of {counted:,} weights that layers state, {own:,} are {precision}"
    layers = {name: count // summary["profiles"] for name, count in summary["weighted"].items()}
    free = sum(layers.values()) - kept
    if kept and layers.get(precision, 0) < 0.5 * free:
        return False, (
            f"no: of {free} layers that state their weights and need not stay fp32, "
            f"{layers.get(precision, 0)} are {precision}"
        )
    fp32 = weights.get("fp32", 0)
    if kept and not fp32 and not summary["silent"]:
        return False, f"no: {kept} layers with weights are to stay fp32, and none does"
    if kept and own + fp32 >= _PROVEN_SHARE * parameters:
        return True, (
            f"of {parameters:,} weights {own:,} are stated as {precision} by their layers and "
            f"{fp32:,} as fp32, where {kept} layers are to stay so"
        )
    if own >= _PROVEN_SHARE * parameters:
        return True, f"{own:,} of {parameters:,} weights are stated as {precision} by their layers"
    if precision == "int8" and own >= 0.5 * parameters:
        return True, f"{own:,} of {parameters:,} weights are stated as int8 by their layers"
    size = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}[precision]
    per_weight = plan_size / max(1, parameters)
    if summary["silent"] and own >= _PROVEN_SHARE * counted and per_weight >= size:
        # Too much for less than this precision; more precise copies would make it larger still.
        bound = float("inf") if precision == "fp32" else 1.25 * size
        if per_weight <= bound:
            return True, (
                f"fused layers do not state their weights; the plan has {per_weight:.2f} bytes for "
                f"each of {parameters:,} weights"
            )
    return False, (
        f"layers state {own:,} of {parameters:,} weights as {precision}, and the plan has "
        f"{per_weight:.2f} bytes for each"
    )


def _type_of(text: str) -> str:
    for name, pattern in _TYPES:
        if re.search(pattern, text, re.IGNORECASE):
            return name
    return "other"
