"""The table of targets, ``zoo/schema/targets.toml``: what runs where, read and typed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from zoo.schema.precisions import Placing, Precision, Rest
from zoo.util.toml import toml

PRECISIONS: tuple[Precision, ...] = tuple(Precision)


class _Facts(BaseModel):
    """Base of the table's parts; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    source: str


class ArchFacts(_Facts):
    """An architecture: its name and the precisions that its hardware supports."""

    name: str
    units: tuple[str, ...]


class RecipeFacts(_Facts):
    """A precision that the farm has no recipe for yet: what a recipe would need."""

    recipe: str


class CellFacts(_Facts):
    """The facts about a line on some architectures.

    Attributes:
        archs: Names of the architectures.
        precisions: The supported precisions; empty if the architectures are not supported.
        why_not: Why the architectures are not supported, None if they are.
        without: Precisions that are not supported for a family of models, by family.
        note: A remark, or None; the reason for ``without``.
        container: Container image, if it differs from the line's.
        driver: Minimum driver by CUDA major version of the package, the farm's choice first, if it
            differs from the line's.
    """

    archs: tuple[str, ...]
    precisions: tuple[Precision, ...] = ()
    why_not: str | None = None
    without: dict[str, tuple[Precision, ...]] = {}
    note: str | None = None
    container: str | None = None
    driver: dict[int, int] = {}


class LineFacts(BaseModel):
    """The facts about a runtime line.

    Attributes:
        dialect: The ONNX dialect that its parser reads, ``dynamo-20`` or ``torchscript-17``.
        int8_placing: The runtime whose fusions a quantised ONNX's Q/DQ nodes are placed for.
        int8_rest: Type of the layers that a quantised ONNX does not quantise: fp16 if the network
            is strongly typed; fp32 if the builder chooses types or fp16 is not supported.
        install: The command that installs it.
        note: A remark, or None.
        container: Container image; ``unlocked`` if none was confirmed, ``none`` if there is none.
        container_note: Why no image is named, or None.
        driver: Minimum driver by CUDA major version of the package, the farm's choice first.
        why_not: Why a precision is not supported, by precision.
        cells: The facts by architecture; each architecture of the table occurs once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dialect: str
    dialect_source: str
    int8_placing: Placing = Placing.TENSORRT
    int8_rest: Rest = Rest.FP32
    install: str
    note: str | None = None
    container: str
    container_note: str | None = None
    driver: dict[int, int] = {}
    driver_source: str | None = None
    why_not: dict[str, str] = {}
    cells: tuple[CellFacts, ...]

    def cell(self, arch: str) -> CellFacts:
        """Returns the facts on an architecture, completed by the line's."""
        [own] = [cell for cell in self.cells if arch in cell.archs]
        filled = {"container": own.container or self.container, "driver": own.driver or self.driver}
        return own.model_copy(update=filled)


class Table(BaseModel):
    """``zoo/schema/targets.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    arch: dict[str, ArchFacts]
    precision: dict[str, RecipeFacts]
    line: dict[str, LineFacts]

    @model_validator(mode="after")
    def _every_precision_is_planned_or_made(self) -> Table:
        cells = [cell for facts in self.line.values() for cell in facts.cells]
        for precision in Precision:
            if precision in self.precision:
                raise ValueError(
                    f"[precision.{precision}] says that {precision} is planned, but it is a "
                    "member of Precision: remove that table"
                )
            if not any(precision in cell.precisions for cell in cells):
                raise ValueError(f"no cell lists {precision}: add it where engines support it")
        return self


@cache
def target_table() -> Table:
    """Returns ``zoo/schema/targets.toml``, parsed."""
    text = Path(__file__).with_name("targets.toml").read_text(encoding="utf-8")
    return Table.model_validate(toml.loads(text))
