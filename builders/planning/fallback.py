"""Fallback to stricter networks if an engine misses its tolerance.

Before a build, the ONNX is evaluated. The runtime introduces rounding that evaluating the ONNX
cannot reproduce, so an engine may still miss the tolerance that its ONNX meets. Then a network that
keeps more operators in a higher precision is exported and built.
"""

from __future__ import annotations

from collections.abc import Callable

from builders.recipe.export_form import Form
from zoo.schema.records import ExportRecord, FailureRecord

MaybeExport = ExportRecord | FailureRecord | None
"""An export, the record of its failure, or None if it was not tried."""


def best_form(
    form: Form,
    export: Callable[[Form], MaybeExport],
    missed: Callable[[ExportRecord], bool],
) -> tuple[Form, MaybeExport]:
    """Returns the first form whose engine is not known to miss its tolerance, and its export.

    A failed export also falls back to a stricter form, if one may meet the tolerance. Stricter
    forms that failed or give the same ONNX are skipped; if all are known to miss, the last one that
    was exported is returned.

    Args:
        form: The form to try first.
        export: Returns the export of a form; None if it was not tried.
        missed: Whether the engine of an export is known to miss its tolerance.
    """
    current = export(form)
    for stricter in form.stricter:
        if not _falls_back(current, missed):
            break
        other = export(stricter)
        if isinstance(other, FailureRecord) or _same(other, current):
            continue
        form, current = stricter, other
    return form, current


def _falls_back(export: MaybeExport, missed: Callable[[ExportRecord], bool]) -> bool:
    if isinstance(export, FailureRecord):
        return export.stricter_may_pass
    return export is not None and missed(export)


def _same(a: MaybeExport, b: MaybeExport) -> bool:
    return isinstance(a, ExportRecord) and isinstance(b, ExportRecord) and a.onnx == b.onnx
