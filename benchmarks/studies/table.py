"""Formats the results of studies as Markdown; reads and writes no files."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.studies.result import Row, Studied, Studies
from builders.photos.bundled import GOLDEN_COUNT
from zoo.schema.precisions import Precision

_LARGEST = 65504.0  # fp16's largest value

_NOTES: dict[Studied, str] = {
    Precision.FP16: """\
# fp16: ours, PyTorch's .half() and ModelOpt's AutoCast

Features of golden photos, compared with PyTorch's in fp32. The networks run on the CPU with every
value between two operators rounded to fp16. Weights are seeded (a dry run) unless a model is marked
real. `ours` is the network that the farm builds engines from; `.half()` is the network cast in
PyTorch, then exported; AutoCast runs with its defaults on our calibration photos. The decision
based on this is `docs/adr/0010-lower-precision-by-measuring.md`.

- *operators*, *work*: number of operators with fp16 results, and their share of the
  multiplications.
- *weights' error*: `|w - w32| / |w32|`, the median over convolutions and matrix products.
- *largest sum in fp16*: upper bound of the partial sums within an fp16 operator. Rounding every
  value does not show overflow inside a kernel; numbers beyond fp16's range (65504) are bold.
- *s*: duration of the conversion in seconds, without the export by PyTorch.
""",
    Precision.INT8: """\
# int8: where we place Q/DQ, and where ModelOpt does

Features of golden photos, compared with PyTorch's in fp32. The networks run on the CPU: quantised
values are rounded by their Q/DQ, the remaining layers are fp32. Weights are seeded (a dry run)
unless a model is marked real. All methods calibrate on the same photos. `ours` is the network that
the farm builds TensorRT engines from: the best of four ranges, with sensitive operators kept in
higher precision. The others keep none. *Our placement* has one row per method of choosing ranges
(`builders/precision/ranges.py`); the rows with the largest magnitude (max) differ only in the
placement. ModelOpt's default is entropy. *ONNX Runtime* is `quantize_static` with the types that
TensorRT supports: symmetric, weights per channel, no bias. The decision based on this is
`docs/adr/0011-where-int8-quantises.md`.

- *operators*, *work*: number of operators whose inputs are all dequantised values, and their share
  of the multiplications. More is faster if the runtime fuses it, and less accurate.
- *quantised inputs*: number of quantised inputs by operator type, without weights.
- *s*: duration of the conversion in seconds.
""",
}


def to_markdown(precision: Studied, studies: Sequence[Studies], models: Sequence[str]) -> str:
    """Returns a page: a table with one row per method and model, and its explanation.

    Args:
        precision: Precision that the models were converted to.
        studies: Results, in the order of the table.
        models: Ids of all models; those without a study are listed.
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
    for study in studies:
        name = study.model + ("" if study.seeded else ", real weights")
        name += "" if study.photos == GOLDEN_COUNT else f", {study.photos} photos"
        lines += [_line(_cells(name, row, precision)) for row in study.rows]
    versions = sorted({f"ModelOpt {study.modelopt}" for study in studies if study.modelopt})
    machines = sorted({machine for study in studies for machine in study.machines})
    lines += ["", f"{'; '.join(versions + machines)}."]
    if missing := [name for name in models if name not in {study.model for study in studies}]:
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
