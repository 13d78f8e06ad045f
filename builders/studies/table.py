"""Table: what was found out, as Markdown; a decision of data, without a disk."""

from __future__ import annotations

from collections.abc import Sequence

from builders.photos import GOLDEN_COUNT
from builders.studies.result import Row, Studied, Studies
from zoo.machine import describe_machine

_LARGEST = 65504.0  # of fp16


def to_markdown(
    precision: Studied, studies: Sequence[Studies], models: Sequence[str], modelopt: str
) -> str:
    """Returns a table with a row for each way of each model.

    Args:
        precision: That the ways give.
        studies: In order.
        models: All that there are; those without a study are named.
        modelopt: Its version.
    """
    head = ["model", "way", f"operators in {precision}", "work", "worst cosine", "median cosine",
            "worst relative error"]  # fmt: skip
    if precision == "fp16":
        head += ["weights' error", "largest fp16 value", "largest sum in fp16"]
    head += ["s", ""]
    align = ["---", "---", *["---:"] * (len(head) - 3), "---"]
    lines = [_line(head), _line(align)]
    for one in studies:
        name = one.model + ("" if one.seeded else ", real weights")
        name += "" if one.photos == GOLDEN_COUNT else f", {one.photos} photos"
        lines += [_line(_cells(name, row, precision)) for row in one.rows]
    machine = describe_machine()
    lines += ["", f"ModelOpt {modelopt}; {machine.get('cpu')}, {machine.get('cores')} cores."]
    if missing := [name for name in models if name not in {one.model for one in studies}]:
        lines.append(f"Not run: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _cells(model: str, row: Row, precision: Studied) -> list[str]:
    if not row.operators:
        empty = [""] * (6 + 3 * (precision == "fp16"))
        return [model, row.way, *empty, row.note]
    cells = [model, row.way, f"{row.low} of {row.operators}", f"{row.work:.1%}"]
    if row.worst_cosine is None:
        cells += [f"NaN or infinity in {row.bad_rows} rows", "", ""]
    else:
        cells += [f"{row.worst_cosine:.6f}", f"{row.median_cosine:.6f}", f"{row.worst_error:.4f}"]
    if precision == "fp16":
        cells += [f"{row.weights_error:.1e}" if row.weights_error is not None else ""]
        cells += [_magnitude(row.largest_value), _magnitude(row.largest_sum)]
    count = len(row.misses)
    missed = f"misses {count} floor{'s' * (count > 1)}" if count else ""
    return [*cells, f"{row.seconds:.0f}", "; ".join(filter(None, (missed, row.note)))]


def _magnitude(value: float) -> str:
    return f"**{value:.3g}**" if value > _LARGEST else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
