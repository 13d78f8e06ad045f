"""The inputs of a build, including the backend's builder options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from builders.backends import get_backend
from builders.backends.base import Options
from builders.planning import wanted as plan
from builders.planning.wanted import Wanted
from builders.recipe.export_form import Form
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import Manifest
from zoo.schema.records import ExportRecord
from zoo.schema.targets import Toolchain


def form_of(wanted: Wanted) -> Form:
    """Returns the form of the ONNX that is tried first for an engine."""
    return Form.for_line(wanted.toolchain.line, wanted.precision)


def build_inputs(
    manifest: Manifest, wanted: Wanted, export: ExportRecord, builder: Mapping[str, str]
) -> BuildInputs:
    """Returns everything that determines an engine.

    Args:
        manifest: The model.
        wanted: The engine.
        export: The ONNX that it is built from.
        builder: Requested builder options, name to value.
    """
    options = _options(wanted.toolchain, tuple(builder.items()))
    return plan.build_inputs(manifest, wanted, export, options)


@lru_cache(maxsize=256)  # the same for all models
def _options(toolchain: Toolchain, builder: tuple[tuple[str, str], ...]) -> Options:
    return get_backend(toolchain.kind).options(toolchain, dict(builder))
