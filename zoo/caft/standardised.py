"""Standardised numbers: heads are trained on them, whatever the unit of what they predict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.targets import Targets
from zoo.util.errors import HeadError
from zoo.util.names import counted

_COARSE = 1e-3  # largest step of float32, as a fraction of the standard deviation


@dataclass(frozen=True, kw_only=True)
class Standardised:
    """Targets with mean 0 and standard deviation 1 in training.

    Attributes:
        targets: The standardised targets.
        mean: Mean of each number.
        deviation: Standard deviation of each number.
    """

    targets: Targets
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, targets: Targets, train: npt.NDArray[np.int64]) -> Standardised:
        """Standardises numbers by the mean and the deviation of the training samples.

        Raises:
            HeadError: A number is the same for all of them, or varies too little for float32.
        """
        own = targets.values[train]
        mean, deviation = own.mean(axis=0), own.std(axis=0)
        for name, column, middle, spread in zip(targets.names, own.T, mean, deviation, strict=True):
            if column.min() == column.max():
                raise HeadError(
                    f"'{name}' is the same, {column[0]:g}, in all that a head would be trained on "
                    f"({counted(len(column), 'image')}): there is nothing to learn",
                    hint="leave the column out, or add images with other values",
                )
            if np.spacing(np.float32(abs(middle))) > _COARSE * spread:
                raise HeadError(
                    f"'{name}' varies by {spread:.2g} around {middle:.10g}: heads compute in "
                    "float32, which can't tell such numbers apart",
                    hint="subtract a constant from the column",
                )
        values = ((targets.values - mean) / deviation).astype(np.float32)
        return cls(targets=replace(targets, values=values), mean=mean, deviation=deviation)

    def undone(self, layers: tuple[tuple[Any, Any], ...]) -> tuple[tuple[Any, Any], ...]:
        """Returns the layers of a head that predicts the numbers in their own unit."""
        *first, (weight, bias) = layers
        weight = (weight * self.deviation[:, None]).astype(np.float32)
        bias = (bias * self.deviation + self.mean).astype(np.float32)
        return (*first, (weight, bias))
