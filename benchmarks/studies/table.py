"""Table: what was found out, as Markdown; a decision of data, without a disk."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.studies.result import Row, Studied, Studies
from builders.photos.bundled import GOLDEN_COUNT
from zoo.schema.precisions import Precision

_LARGEST = 65504.0  # of fp16

_NOTES: dict[Studied, str] = {
    Precision.FP16: """\
# fp16: ours, PyTorch's .half() and ModelOpt's AutoCast

Features of golden photos against PyTorch's fp32, on the CPU, every value between two operators
rounded to fp16. Weights are seeded where they are not called real: a dry run. `ours` is what the
farm makes engines of; `.half()` is the network cast in PyTorch, then exported; AutoCast has its own
defaults and our calibration photos. Decided by it: `docs/adr/0010-lower-precision-by-measuring.md`.

- *operators*, *work*: how many give fp16, and how much is multiplied in them.
- *weights' error*: `|w - w32| / |w32|`, the median over convolutions and matrix products.
- *largest sum in fp16*: how far a sum within an fp16 operator can grow on its way. Rounding every
  value does not show what a kernel does inside; in bold is what fp16 (65504) does not hold.
- *s*: seconds that making it took, the export by PyTorch aside.
""",
    Precision.INT8: """\
# int8: where we place Q/DQ, and where ModelOpt does

Features of golden photos against PyTorch's fp32, on the CPU, what is quantised rounded as the Q/DQ
say, the rest in fp32. Weights are seeded where they are not called real: a dry run. All are
calibrated on the same photos. `ours` is what the farm makes engines of for TensorRT: the best of
four ranges, and what the features can't do without kept higher. The others keep nothing higher.
*Our placement* has one row for each way of telling ranges (`builders/precision/ranges.py`); those
with the largest magnitude (max) differ in the placement alone. ModelOpt's own default is entropy.
*ONNX Runtime* is `quantize_static` with the types that TensorRT takes: symmetric, weights per
channel, no bias. Decided by it: `docs/adr/0011-where-int8-quantises.md`.

- *operators*, *work*: how many take nothing but dequantised values, and how much is multiplied in
  them. More is faster where the runtime fuses it, and less exact.
- *quantised inputs*: of operators, weights aside: where Q/DQ stand.
- *s*: seconds that making it took.
""",
}


def to_markdown(precision: Studied, studies: Sequence[Studies], models: Sequence[str]) -> str:
    """Returns a note: a table with a row for each way of each model, and how to read it.

    Args:
        precision: That the ways give.
        studies: In order.
        models: All that there are; those without a study are named.
    """
    head = ["model", "way", f"operators in {precision}", "work", "worst cosine", "median cosine",
            "worst relative error"]  # fmt: skip
    if precision == Precision.FP16:
        head += ["weights' error", "largest fp16 value", "largest sum in fp16"]
    else:
        head += ["quantised inputs"]
    head += ["s", ""]
    align = ["---", "---", *["---:"] * (len(head) - 3), "---"]
    command = f"python -m benchmarks.studies {precision} --modelopt-python VENV/bin/python"
    lines = [_NOTES[precision], f"```sh\n{command}\n```\n", _line(head), _line(align)]
    for one in studies:
        name = one.model + ("" if one.seeded else ", real weights")
        name += "" if one.photos == GOLDEN_COUNT else f", {one.photos} photos"
        lines += [_line(_cells(name, row, precision)) for row in one.rows]
    versions = sorted({f"ModelOpt {one.modelopt}" for one in studies if one.modelopt})
    machines = sorted({machine for one in studies for machine in one.machines})
    lines += ["", f"{'; '.join(versions + machines)}."]
    if missing := [name for name in models if name not in {one.model for one in studies}]:
        lines.append(f"Not run: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _cells(model: str, row: Row, precision: Studied) -> list[str]:
    if not row.operators:
        empty = [""] * (9 if precision == Precision.FP16 else 7)
        return [model, row.way, *empty, row.note]
    cells = [model, row.way, f"{row.low} of {row.operators}", f"{row.work:.1%}"]
    if row.worst_cosine is None:
        cells += [f"NaN or infinity in {row.bad_rows} rows", "", ""]
    else:
        cells += [f"{row.worst_cosine:.6f}", f"{row.median_cosine:.6f}", f"{row.worst_error:.4f}"]
    if precision == Precision.FP16:
        cells += [f"{row.weights_error:.1e}" if row.weights_error is not None else ""]
        cells += [_magnitude(row.largest_value), _magnitude(row.largest_sum)]
    else:
        cells += [", ".join(f"{count} of {kind}" for kind, count in row.quantised.items())]
    count = len(row.misses)
    missed = f"misses {count} floor{'s' * (count > 1)}" if count else ""
    return [*cells, f"{row.seconds:.0f}", "; ".join(filter(None, (missed, row.note)))]


def _magnitude(value: float) -> str:
    return f"**{value:.3g}**" if value > _LARGEST else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
