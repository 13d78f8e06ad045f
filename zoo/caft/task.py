"""Tasks: what a head predicts. One table holds what differs between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.schema.closed import complete
from zoo.util.strenum import StrEnum

Floats = npt.NDArray[np.float32]


class Task(StrEnum):
    """The kind of value that a head predicts for an image."""

    CLASSIFICATION = "classification"
    """One of several classes."""

    REGRESSION = "regression"
    """One or several numbers."""

    MULTI_LABEL = "multi-label"
    """Any number of labels, none included."""


def softmax(logits: Floats) -> Floats:
    """Returns the probability of each class: a row's sum is 1."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Returns the probability of each label."""
    small = np.exp(-np.abs(logits))  # the exponent of a large logit would overflow
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), np.float32)


def _identity(logits: Floats) -> Floats:
    return logits


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """Facts about training and running heads of a task.

    Attributes:
        loss: Function of ``torch.nn.functional`` that training minimises, summed over the outputs.
        activation: Maps the last layer's outputs to what the head predicts.
        operator: The same as an ONNX operator.
        output: Name of the output of an exported ONNX model.
        noun: What several outputs are called in messages.
        singular: What one is called.
    """

    loss: str
    activation: Callable[[Floats], Floats]
    operator: str
    output: str
    noun: str
    singular: str

    def count(self, outputs: int) -> str:
        """Returns a number of outputs as text, such as ``3 classes``."""
        return f"{outputs} {self.singular if outputs == 1 else self.noun}"

    def onnx_attributes(self) -> dict[str, int]:
        """Returns the attributes of the ONNX operator."""
        return {"axis": 1} if self.operator == "Softmax" else {}


TASKS = complete(
    Task,
    {
        Task.CLASSIFICATION: TaskRow(
            loss="cross_entropy",
            activation=softmax,
            operator="Softmax",
            output="probabilities",
            noun="classes",
            singular="class",
        ),
        Task.REGRESSION: TaskRow(
            loss="mse_loss",
            activation=_identity,
            operator="Identity",
            output="values",
            noun="numbers",
            singular="number",
        ),
        Task.MULTI_LABEL: TaskRow(
            loss="binary_cross_entropy_with_logits",
            activation=sigmoid,
            operator="Sigmoid",
            output="probabilities",
            noun="labels",
            singular="label",
        ),
    },
)
