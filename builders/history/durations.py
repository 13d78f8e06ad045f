"""History: what engines took to make, and what the next ones are expected to take. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import ExportRecord
from zoo.schema.targets import Label

Basis = Literal["own", "similar", "none"]
"""Where an expectation comes from: the same model on the same target, others alike, or nowhere."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What one engine is expected to take.

    Attributes:
        seconds: Of its build and proof.
        proof: Seconds of its proof alone, 0 where none was timed.
        size: Of the engine, bytes.
        basis: Where the numbers come from; all are 0 where there are none.
    """

    seconds: float = 0.0
    proof: float = 0.0
    size: int = 0
    basis: Basis = "none"


@dataclass
class History:
    """What was made so far."""

    _engines: dict[tuple[str, ...], list[Expected]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _exports: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, model: ModelIndex) -> None:
        """Takes in the engines of a model, superseded ones too."""
        for entry in model.engines:
            if entry.cost.seconds is None:
                continue
            found = _took(entry)
            for label in entry.targets:
                for kind in _alike(model.model, label):
                    self._engines[kind].append(found)

    def add_export(self, export: ExportRecord) -> None:
        """Takes in what an export took."""
        if export.cost.seconds is not None:
            inputs = export.inputs
            for kind in ((inputs.model, inputs.dialect), ("",)):
                self._exports[kind].append(export.cost.seconds)

    def of(self, model: str, label: str) -> Expected:
        """Says what an engine of a model for a target is expected to take.

        Args:
            model: Its id.
            label: Of the engine; of several architectures, the first counts.

        Returns:
            The median of the nearest of these that there are: the same model on the same target;
            the same model on other GPUs, with that runtime in that precision; other models on that
            target; any with that runtime in that precision.
        """
        for number, kind in enumerate(_alike(model, label)):
            if found := self._engines.get(kind):
                return Expected(
                    seconds=median(one.seconds for one in found),
                    proof=median(one.proof for one in found),
                    size=int(median(one.size for one in found)),
                    basis="similar" if number else "own",
                )
        return Expected()

    def of_export(self, model: str, dialect: str) -> float:
        """Says how many seconds a model's exports in a dialect should take, 0 if unknown."""
        found = self._exports.get((model, dialect)) or self._exports.get(("",))
        return median(found) if found else 0.0


def _took(entry: EngineEntry) -> Expected:
    proof = entry.cost.proof_seconds or 0.0
    return Expected(
        seconds=(entry.cost.seconds or 0.0) + proof, proof=proof, size=entry.engine.size
    )


def _alike(model: str, label: str) -> Iterable[tuple[str, ...]]:
    """Yields the groups that an engine belongs to, the nearest first."""
    read = Label.read(label)
    kind, target = read.runtime.kind, (read.arch, read.line, read.precision)
    yield ("own", model, *target)
    yield ("model", model, kind, read.precision)
    yield ("target", *target)
    yield ("any", kind, read.precision)
