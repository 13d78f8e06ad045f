"""Settings of a head's training, and a solver's result."""

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
    """Settings of a head's training.

    Attributes:
        kind: ``linear``, or ``mlp`` with one hidden layer.
        solver: ``adamw``, ``lbfgs``, or ``sklearn`` for scikit-learn's logistic regression (linear
            heads only).
        epochs: Maximum number of epochs; an epoch of L-BFGS is 20 iterations.
        patience: Number of epochs without a lower validation loss after which training stops.
        batch: Rows per step of AdamW.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW; L-BFGS adds half of it times the squared weights to
            its loss.
        hidden: Width of the hidden layer.
        dropout: Dropout rate of the hidden layer.
        val: Fraction of validation samples.
        test: Fraction of test samples.
        seed: Random seed of the split, the initial weights and the order of rows.

    Raises:
        UsageError: A value is out of range.
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
        for name, good, allowed in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "a positive number"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "a number of at least 0"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("seed", 0 <= self.seed < _SEEDS, f"an integer from 0 to {_SEEDS - 1}"),
        ):
            if not good:
                raise UsageError(f"{name} {getattr(self, name)} is not {allowed}")


@dataclass(kw_only=True)
class Fitted:
    """A solver's result.

    Attributes:
        layers: Weight and bias of each layer.
        curve: Losses and accuracy of each epoch.
        seconds: Duration of all epochs.
    """

    layers: tuple[tuple[Any, Any], ...]
    curve: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
