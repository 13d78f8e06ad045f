"""Heads, which are trained on features: stored as safetensors, run with NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, ValidationError

from zoo.caft.card import Identity
from zoo.caft.task import TASKS, Task
from zoo.inference.extractor import Extractor
from zoo.schema.measurements import Measurement
from zoo.schema.records import Record
from zoo.util.causes import plain
from zoo.util.errors import HeadError, MissingPackageError
from zoo.util.files import write_whole
from zoo.util.kinds import kind_of_data
from zoo.util.loading import parse_json, read_regular
from zoo.util.shown import Shown, shortened

Floats = npt.NDArray[np.float32]
HeadKind = Literal["linear", "mlp"]
_CARD = "caft-zoo"
_CARD_WITH_TASK = "caft-zoo.task"
"""Where the card of a head is that does not classify: older versions, which would take any head for
a classifier, refuse it."""
_THRESHOLD = 0.5


class Training(Measurement):
    """The training of a head.

    Attributes:
        solver: ``adamw``, ``lbfgs`` or ``sklearn``.
        seed: Random seed of the split, the initial weights and the order of rows.
        rows: Number of rows it was trained on; a sample has a row per view.
        epochs: Number of epochs.
    """

    solver: str | None = None
    seed: int | None = None
    rows: int | None = None
    epochs: int | None = None


class HeadCard(Record):
    """The metadata in a head's file.

    Attributes:
        identity: The engine and settings that made the features it was trained on.
        kind: ``linear``, or ``mlp`` with one hidden layer.
        labels: Names of the classes, numbers or labels, in the order of its outputs.
        task: What it predicts.
        trained: How it was trained; empty if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    identity: Identity
    kind: HeadKind
    labels: tuple[str, ...]
    task: Task = Task.CLASSIFICATION
    trained: Training = Training()


@dataclass(frozen=True, kw_only=True, repr=False)
class Head(Shown):
    """Maps features to predictions: standardises them, then applies a layer, or two with a ReLU.

    Attributes:
        card: Its metadata.
        mean: Subtracted from the features, ``(feature_dim,)``.
        scale: Then multiplied with them, ``(feature_dim,)``.
        layers: Weight ``(out, in)`` and bias ``(out,)`` of each layer.
    """

    card: HeadCard
    mean: Floats
    scale: Floats
    layers: tuple[tuple[Floats, Floats], ...]

    def _facts(self) -> dict[str, str]:
        card = self.card
        outputs = TASKS[card.task].count(len(card.labels))
        return {
            "kind": card.kind,
            "task": str(card.task),
            "outputs": f"{outputs} ({shortened(card.labels)})",
            "model": f"{card.identity.model}, {card.identity.target}",
        }

    def logits(self, features: npt.NDArray[Any]) -> Floats:
        """Returns the last layer's outputs, ``(N, outputs)`` float32, of ``(N, feature_dim)``."""
        values = (np.asarray(features, np.float32) - self.mean) * self.scale
        for number, (weight, bias) in enumerate(self.layers):
            if number:
                values = np.maximum(values, 0)
            values = values @ weight.T + bias
        return np.asarray(values, np.float32)

    def finite_logits(self, features: npt.NDArray[Any]) -> Floats:
        """Returns the last layer's outputs, which are finite.

        Raises:
            HeadError: They are not, because the features are not or overflow.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            logits = self.logits(features)
        if not np.isfinite(logits).all():
            raise HeadError(
                "the head's outputs are not finite numbers",
                hint="features are damaged or of another model: extract them again",
            )
        return logits

    def outputs(self, features: npt.NDArray[Any]) -> Floats:
        """Returns what the head predicts, ``(N, outputs)`` float32.

        Returns:
            The probability of each class or label, or for regression the numbers.

        Raises:
            HeadError: They are not finite numbers, because the features are not or overflow.
        """
        return TASKS[self.card.task].activation(self.finite_logits(features))

    def probabilities(self, features: npt.NDArray[Any]) -> Floats:
        """Returns the probability of each class or label, ``(N, classes)`` float32.

        Raises:
            HeadError: The head predicts numbers.
        """
        if self.card.task is Task.REGRESSION:
            raise HeadError("a head for regression has no probabilities", hint="use head.outputs")
        return self.outputs(features)

    def predict(self, features: npt.NDArray[Any]) -> list[str]:
        """Returns the name of the most likely class of each row.

        Raises:
            HeadError: The head does not classify.
        """
        if self.card.task is not Task.CLASSIFICATION:
            raise HeadError(
                f"a head for {self.card.task} does not predict a class",
                hint="use head.outputs, or head.predict_labels for multi-label",
            )
        return [self.card.labels[number] for number in self.logits(features).argmax(axis=1)]

    def predict_labels(self, features: npt.NDArray[Any]) -> list[tuple[str, ...]]:
        """Returns the labels of each row whose probability is at least one half.

        Raises:
            HeadError: The head's task is not multi-label.
        """
        if self.card.task is not Task.MULTI_LABEL:
            raise HeadError(f"a head for {self.card.task} does not predict labels")
        rows = self.probabilities(features) >= _THRESHOLD
        return [tuple(self.card.labels[number] for number in np.flatnonzero(row)) for row in rows]

    def check(self, extractor: Extractor, *, allow_other_engine: bool = False) -> None:
        """Checks that an extractor's features fit this head.

        Args:
            extractor: The extractor that is to make features for this head.
            allow_other_engine: Whether to accept another engine of the same model: its features
                agree within the tolerance of its precision, but this head was not evaluated on
                them.

        Raises:
            HeadError: The head was trained on features of another model or engine.
        """
        own = self.card.identity
        if own.model != extractor.model:
            raise HeadError(
                f"the head was trained on features of {own.model}, these are of {extractor.model}",
                hint=f"use --model {own.model}, or train a head on {extractor.model}",
            )
        if own.preprocess != extractor.preprocess:
            raise HeadError(
                f"the head was trained on {own.model} with other preprocessing: "
                f"{own.preprocess} then, {extractor.preprocess} now",
                hint="train it again on a cache of this engine",
            )
        if own.engine != extractor.engine and not allow_other_engine:
            raise HeadError(
                f"the head was trained on engine {own.engine[:12]} ({own.target}), this is "
                f"{extractor.engine[:12]} ({extractor.record.targets[0]})",
                hint=f"use --target {own.target}, or --allow-other-engine to accept this engine",
            )

    def save(self, path: Path) -> None:
        """Writes the head atomically as safetensors.

        Raises:
            HeadError: The file can't be written.
            MissingPackageError: safetensors is not installed.
        """
        numpy_io = _safetensors()
        tensors = {"mean": self.mean, "scale": self.scale}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"{number}.weight": weight, f"{number}.bias": bias}
        # safetensors 0.8 writes memory as it lies: a transposed array would load in another order.
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise HeadError("the head has weights that are not finite numbers: nothing was written")
        classifies = self.card.task is Task.CLASSIFICATION
        text = self.card.model_dump_json(exclude={"task"} if classifies else None)
        data = numpy_io.save(arrays, {_CARD if classifies else _CARD_WITH_TASK: text})
        try:
            write_whole(path, data)
        except OSError as error:
            raise HeadError(
                f"can't write {path}: {error.strerror}", hint="choose another file with -o"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Head:
        """Reads a head.

        Raises:
            HeadError: The file can't be read or is not a head.
            MissingPackageError: safetensors is not installed.
        """
        numpy_io = _safetensors()
        try:
            data = read_regular(path)
        except IsADirectoryError as error:
            raise HeadError(f"{path} is a folder, not a head", hint=_TRAIN) from error
        except OSError as error:
            raise HeadError(f"can't read {path}: {error.strerror}", hint=_TRAIN) from error
        metadata = _metadata_of(data, path)
        try:
            card = HeadCard.model_validate_json(metadata.get(_CARD_WITH_TASK) or metadata[_CARD])
            tensors = numpy_io.load(data)
            return cls._of(card, tensors)
        except (*_UNREADABLE, _tensor_error()) as error:
            reason = plain(str(error))
            raise HeadError(
                f"{path} is not a head of caft-zoo: {type(error).__name__} {reason}", hint=_TRAIN
            ) from error

    @classmethod
    def _of(cls, card: HeadCard, tensors: dict[str, Floats]) -> Head:
        count = sum(name.endswith(".weight") for name in tensors)
        layers = tuple((tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in range(count))
        widths = [card.identity.feature_dim, *(len(bias) for _, bias in layers)]
        shapes = [weight.shape for weight, _ in layers]
        if shapes != list(zip(widths[1:], widths, strict=False)) or widths[-1] != len(card.labels):
            raise ValueError(f"layers of {shapes} do not match its card")
        for name, array in tensors.items():
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} has values that are not finite float32 numbers")
        for name in ("mean", "scale"):
            if tensors[name].shape != (card.identity.feature_dim,):
                raise ValueError(f"{name} of {tensors[name].shape} does not match its card")
        if any(bias.ndim != 1 for _, bias in layers):
            raise ValueError("a bias is not a vector")
        return cls(card=card, mean=tensors["mean"], scale=tensors["scale"], layers=layers)


_UNREADABLE: tuple[type[Exception], ...] = (
    ValidationError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError,
)  # fmt: skip
"""What a damaged file makes its readers raise."""

_TRAIN = "create one: zoo train-head CACHE -o head.safetensors"


def _metadata_of(data: bytes, path: Path) -> dict[str, str]:
    """Returns the metadata of a head's file.

    Raises:
        HeadError: It is no safetensors file, or one without a head's metadata.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        header = parse_json(data[8 : 8 + length]) if length <= len(data) else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise HeadError(f"{path} is {kind_of_data(data)}, not a head", hint=_TRAIN)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not {_CARD, _CARD_WITH_TASK}.intersection(metadata):
        raise HeadError(f"{path} is a safetensors file, but not of a head of caft-zoo", hint=_TRAIN)
    return metadata


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError(
            "safetensors is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    return safetensors.numpy


def _tensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    error: type[Exception] = SafetensorError
    return error
