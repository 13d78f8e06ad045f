"""Order: an engine that is to be had, and what it is to be built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from builders import plan
from builders.backends import get_backend
from builders.inputs import Form
from builders.job import Prove
from builders.plan import Wanted
from builders.request import Request
from zoo.key import BuildInputs
from zoo.manifest import Manifest
from zoo.record import ExportRecord
from zoo.tolerance import Tolerance


@dataclass(frozen=True, kw_only=True)
class Order:
    """An engine that is to be had, and what it is to be built from.

    Attributes:
        manifest: The model.
        wanted: The engine.
        export: The ONNX that it is built from.
        request: What the run was asked for.
    """

    manifest: Manifest
    wanted: Wanted
    export: ExportRecord
    request: Request

    @property
    def label(self) -> str:
        """Model and engine, for people."""
        return f"{self.manifest.id} {self.wanted.label}"

    @cached_property
    def inputs(self) -> BuildInputs:
        """What the engine is made from."""
        return build_inputs(self.manifest, self.wanted, self.export, self.request.builder)

    @property
    def tolerance(self) -> Tolerance:
        """What it must keep."""
        return self.manifest.kept_by(self.wanted.precision)

    def proof(self) -> Prove:
        """Says how it is proven."""
        profiles = self.inputs.profiles
        return plan.proof(self.manifest, self.export, self.wanted.precision, profiles)


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
