"""How a head is trained, and what a solver returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.caft.head import HeadKind
from zoo.caft.report import Epoch
from zoo.util.errors import UsageError

Solver = Literal["adamw", "lbfgs", "sklearn"]

_SEEDS = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a head is trained.

    Attributes:
        kind: ``linear``, or ``mlp`` with one hidden layer.
        solver: ``adamw``, ``lbfgs``, or ``sklearn`` for its logistic regression (linear heads).
        epochs: At most; for L-BFGS, of 20 iterations each.
        patience: Epochs without a better validation loss before it stops.
        batch: Rows at once, for AdamW.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW; half of it times the squared weights is added to L-BFGS's loss.
        hidden: Width of the hidden layer.
        dropout: Part of the hidden layer that is dropped while training.
        val: Part of the samples that stop it.
        test: Part of the samples that judge it.
        seed: Of split, initial weights and order.

    Raises:
        UsageError: A value that nothing can be trained with.
    """

    kind: HeadKind = "linear"
    solver: Solver = "adamw"
    epochs: int = 100
    patience: int = 10
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    hidden: int = 512
    dropout: float = 0.2
    val: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, good, takes in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "a number, 0 or more"),
            ("dropout", 0 <= self.dropout < 1, "a part, 0 or more and below 1"),
            ("seed", 0 <= self.seed < _SEEDS, f"a whole number from 0 to {_SEEDS - 1}"),
        ):
            if not good:
                raise UsageError(f"{name} {getattr(self, name)} is not {takes}")


@dataclass(kw_only=True)
class Fitted:
    """What a solver gives.

    Attributes:
        layers: Weight and bias of each layer.
        curve: What each epoch gave.
        seconds: What the epochs took.
    """

    layers: tuple[tuple[Any, Any], ...]
    curve: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
