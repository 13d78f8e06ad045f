"""Settings of a head's training, and a solver's result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from zoo.caft.arguments import check_choice, check_number, whole
from zoo.caft.head import HeadKind
from zoo.caft.report import Epoch

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
        check_choice("kind", self.kind, get_args(HeadKind))
        check_choice("solver", self.solver, get_args(Solver))
        for name in ("epochs", "patience", "batch", "hidden"):
            number = whole(name, getattr(self, name), least=1)
            object.__setattr__(self, name, number)  # NumPy's overflow, and are no JSON
        object.__setattr__(self, "seed", whole("seed", self.seed, least=0, most=_SEEDS - 1))
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("dropout", self.dropout, least=0, below=1)
        check_number("val", self.val)
        check_number("test", self.test)


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
