"""Order: what an engine is built from."""

from __future__ import annotations

from collections.abc import Mapping

from builders import plan
from builders.backends import get_backend
from builders.inputs import Form
from builders.plan import Wanted
from zoo.key import BuildInputs
from zoo.manifest import Manifest
from zoo.record import ExportRecord


def form_of(wanted: Wanted) -> Form:
    """Returns the form of the ONNX that an engine is built from first."""
    return Form.for_line(wanted.toolchain.line, wanted.precision)


def build_inputs(
    manifest: Manifest, wanted: Wanted, export: ExportRecord, builder: Mapping[str, str]
) -> BuildInputs:
    """Collects what an engine is made from.

    Args:
        manifest: The model.
        wanted: The engine.
        export: The ONNX that it is built from.
        builder: Builder options as they were asked for, name to value.
    """
    options = get_backend(wanted.toolchain.kind).options(wanted.toolchain, builder)
    return plan.build_inputs(manifest, wanted, export, options)
