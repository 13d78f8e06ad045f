"""Estimates how long engines take to build and verify, from earlier ones. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from zoo.schema.published import AnyEngine, AnyModel
from zoo.schema.records import ExportRecord
from zoo.schema.targets import Label

Basis = Literal["own", "similar", "none"]
"""Where an estimate comes from: the same model on the same target, similar engines, or nowhere."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The estimate for an engine; all is 0 without history.

    Attributes:
        seconds: Seconds of its build and verification.
        proof: Seconds of its verification alone, 0 if none was timed.
        size: The engine's size, bytes.
        basis: Where the numbers come from.
    """

    seconds: float = 0.0
    proof: float = 0.0
    size: int = 0
    basis: Basis = "none"


@dataclass
class History:
    """Costs of the engines and exports made so far."""

    _engines: dict[tuple[str, ...], list[Expected]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _exports: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, model: AnyModel) -> None:
        """Adds the engines of a model, including superseded ones."""
        for entry in model.engines:
            if entry.cost.seconds is None:
                continue
            cost = _cost_of(entry)
            for label in entry.targets:
                for kind in _alike(model.model, label):
                    self._engines[kind].append(cost)

    def add_export(self, export: ExportRecord) -> None:
        """Adds the cost of an export."""
        if export.cost.seconds is not None:
            inputs = export.inputs
            for kind in ((inputs.model, inputs.dialect), ("",)):
                self._exports[kind].append(export.cost.seconds)

    def of(self, model: str, label: str) -> Expected:
        """Returns the estimate for an engine.

        Args:
            model: The model's id.
            label: Of the engine; of several architectures, the first counts.

        Returns:
            The median of the closest group that has engines: the same model on the same target; the
            same model on other GPUs with that runtime and precision; other models on that target;
            any engine with that runtime and precision.
        """
        for number, kind in enumerate(_alike(model, label)):
            if engines := self._engines.get(kind):
                return Expected(
                    seconds=median(engine.seconds for engine in engines),
                    proof=median(engine.proof for engine in engines),
                    size=int(median(engine.size for engine in engines)),
                    basis="similar" if number else "own",
                )
        return Expected()

    def of_export(self, model: str, dialect: str) -> float:
        """Returns the estimated seconds of a model's exports in a dialect, 0 if unknown."""
        seconds = self._exports.get((model, dialect)) or self._exports.get(("",))
        return median(seconds) if seconds else 0.0


def _cost_of(entry: AnyEngine) -> Expected:
    proof = entry.cost.proof_seconds or 0.0
    return Expected(
        seconds=(entry.cost.seconds or 0.0) + proof, proof=proof, size=entry.engine.size
    )


def _alike(model: str, label: str) -> Iterable[tuple[str, ...]]:
    """Yields the groups that an engine belongs to, the closest first."""
    read = Label.read(label)
    kind, target = read.runtime.kind, (read.arch, read.line, read.precision)
    yield ("own", model, *target)
    yield ("model", model, kind, read.precision)
    yield ("target", *target)
    yield ("any", kind, read.precision)
