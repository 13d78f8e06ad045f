"""The table of targets, ``zoo/schema/targets.toml``: what runs where, read and typed."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from zoo.schema.precisions import Placing, Precision, Rest
from zoo.util.toml import toml

PRECISIONS: tuple[Precision, ...] = tuple(Precision)


class _Facts(BaseModel):
    """Strict: a word that nobody reads is a mistake in the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str


class ArchFacts(_Facts):
    """An architecture: its name and the precisions that its arithmetic units know."""

    name: str
    units: tuple[str, ...]


class RecipeFacts(_Facts):
    """A precision that the farm does not make: what a recipe would take."""

    recipe: str


class CellFacts(_Facts):
    """What is true of a line on some architectures.

    Attributes:
        archs: Their names.
        precisions: What the farm makes there; empty where it is not served.
        why_not: Why it is not served, None where it is.
        without: Precisions that a family of models has none of there, by family.
        note: What else to know, or None; why, where there is something in ``without``.
        container: Image that has it, where it is not the line's.
        driver: Oldest driver by CUDA major version of the package, the farm's choice first; where
            it is not the line's.
    """

    archs: tuple[str, ...]
    precisions: tuple[Precision, ...] = ()
    why_not: str | None = None
    without: dict[str, tuple[Precision, ...]] = {}
    note: str | None = None
    container: str | None = None
    driver: dict[int, int] = {}


class LineFacts(BaseModel):
    """What the table says of a runtime line.

    Attributes:
        dialect: The ONNX dialect that its parser reads, ``dynamo-20`` or ``torchscript-17``.
        int8_placing: Whose fusions the Q/DQ of an int8 ONNX for it are placed for.
        int8_rest: Type of what an int8 ONNX for it does not quantise. Where types are law, fp16;
            fp32 where the builder chooses, or where fp16 is not to be had.
        install: The command that installs it.
        note: What else to know of it, or None.
        container: Image that has it; ``unlocked`` when none was confirmed, ``none`` without one.
        container_note: Why no image is named, or None.
        driver: Oldest driver by CUDA major version of the package, the farm's choice first.
        why_not: Why it does not take a precision, by precision.
        cells: Every architecture of the table, once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        """Returns what is true on one architecture, with the line's facts filled in."""
        [own] = [one for one in self.cells if arch in one.archs]
        filled = {"container": own.container or self.container, "driver": own.driver or self.driver}
        return own.model_copy(update=filled)


class Table(BaseModel):
    """``zoo/schema/targets.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: dict[str, ArchFacts]
    precision: dict[str, RecipeFacts]
    line: dict[str, LineFacts]


@cache
def target_table() -> Table:
    """Returns ``zoo/schema/targets.toml``, parsed."""
    text = files("zoo.schema").joinpath("targets.toml").read_text(encoding="utf-8")
    return Table.model_validate(toml.loads(text))
