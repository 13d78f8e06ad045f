"""Fallback: the stricter networks that are tried where a precision misses its tolerance.

What is judged before a build is an ONNX. The runtime introduces rounding that evaluating the ONNX
cannot reproduce, so an engine may still miss the tolerance that its ONNX meets: then a network is
made that keeps more of it in higher precision, and built.
"""

from __future__ import annotations

from collections.abc import Callable

from builders.recipe.export_form import Form
from zoo.schema.records import ExportRecord, FailureRecord

MaybeExport = ExportRecord | FailureRecord | None
"""An ONNX, or why there is none, or nothing where it was not tried."""


def best_form(
    form: Form,
    export: Callable[[Form], MaybeExport],
    missed: Callable[[ExportRecord], bool],
) -> tuple[Form, MaybeExport]:
    """Returns the form whose engine is to be had: the first that is not known to miss.

    A precision that there is no ONNX of gives way too, where a stricter one may keep its floors.
    Stricter networks that can't be had, or are the same, are passed over; where no other is left,
    it is the last there is.

    Args:
        form: The first to try.
        export: From a form to its export; None where it is not made yet.
        missed: Whether an export's engine is known to miss.
    """
    found = export(form)
    for stricter in form.stricter:
        if not _gives_way(found, missed):
            break
        other = export(stricter)
        if isinstance(other, FailureRecord) or _same(other, found):
            continue
        form, found = stricter, other
    return form, found


def _gives_way(export: MaybeExport, missed: Callable[[ExportRecord], bool]) -> bool:
    if isinstance(export, FailureRecord):
        return export.stricter_may_pass
    return export is not None and missed(export)


def _same(one: MaybeExport, other: MaybeExport) -> bool:
    return (
        isinstance(one, ExportRecord) and isinstance(other, ExportRecord) and one.onnx == other.onnx
    )
