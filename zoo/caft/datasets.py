"""Sources for the data sets of other libraries: Hugging Face ``datasets`` and torch ``Dataset``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from zoo.caft.sample import Item, Sample, Source
from zoo.util.errors import DatasetError, MissingPackageError


def from_object(data: Any) -> Source:
    """Returns the samples of a Hugging Face ``Dataset``, a torch ``Dataset``, or an iterable.

    Raises:
        DatasetError: It is none of these, or can be iterated only once.
    """
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return HuggingFaceSource(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not _holds_samples(data):
        return TorchSource(data)
    if isinstance(data, Iterator):
        raise DatasetError(
            f"a {type(data).__name__} can be iterated only once; resuming iterates it again",
            hint="pass a list, or an object whose __iter__ starts from the beginning",
        )
    if isinstance(data, Iterable):
        return data
    raise DatasetError(
        f"an object of type {type(data).__name__} is not a data set",
        hint="a data set has __len__ and __getitem__, or yields zoo.caft.sample.Sample",
    )


def from_hub(name: str) -> Source:
    """Opens a data set of Hugging Face ``datasets``, from disk or from the hub.

    Args:
        name: ``NAME[:SPLIT]``: a folder written by ``save_to_disk``, or a name on the hub. The
            split defaults to ``train``.

    Raises:
        MissingPackageError: ``datasets`` is not installed.
        DatasetError: There is no such data set or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError(
            "datasets is not installed", hint="pip install datasets"
        ) from error
    name, _, split = name.partition(":")
    split = split or "train"
    try:
        if Path(name).is_dir():
            loaded = datasets.load_from_disk(name)
            if isinstance(loaded, datasets.DatasetDict):
                if split not in loaded:
                    raise DatasetError(
                        f"{name} has no split '{split}'", hint=f"it has {', '.join(loaded)}"
                    )
                loaded = loaded[split]
        else:
            loaded = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, ConnectionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"can't open hf:{name}: {reason}") from error
    return HuggingFaceSource(loaded)


class HuggingFaceSource:
    """A Hugging Face ``Dataset``: its image column, and its label column if it has one.

    Args:
        dataset: The data set.
        image: The image column; by default the first of type ``Image``.
        label: The label column; by default ``label``, else the first of type ``ClassLabel``.

    Raises:
        DatasetError: The data set lacks one of these columns.
    """

    def __init__(self, dataset: Any, image: str | None = None, label: str | None = None) -> None:
        kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
        images = [name for name, kind in kinds.items() if kind == "Image"]
        labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
        self.image = image or (images[0] if images else "image")
        self.label = label or ("label" if "label" in kinds else next(iter(labels), None))
        for column in (self.image, self.label):
            if column is not None and column not in kinds:
                raise DatasetError(
                    f"the data set has no column '{column}'", hint=f"it has {', '.join(kinds)}"
                )
        self.dataset = dataset
        self._names = getattr(dataset.features.get(self.label), "names", None)
        only_labels = getattr(dataset, "select_columns", None)
        self._labels = only_labels([self.label]) if only_labels and self.label else None

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self.dataset)):
            yield Sample(
                name=f"{index:09d}", label=self._label(index), read=partial(self._read, index)
            )

    def _read(self, index: int) -> Any:
        return self.dataset[index][self.image]

    def _label(self, index: int) -> str | None:
        if self.label is None:
            return None
        rows = self.dataset if self._labels is None else self._labels
        value = rows[index][self.label]
        if value is None or (self._names is not None and value == -1):
            return None
        return self._names[value] if self._names is not None else str(value)


class TorchSource:
    """A torch ``Dataset`` with a length, or any sequence of images or ``(image, label)`` pairs.

    Items are loaded in the decoding threads, labels included. Images are Pillow images, paths,
    uint8 pixels, or preprocessed float32 input ``(3, H, W)``.

    Args:
        dataset: The data set; its ``classes``, if any, name the labels.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._classes = getattr(dataset, "classes", None)

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self.dataset)):
            yield Sample(name=f"{index:09d}", label=None, read=partial(self._read, index))

    def _read(self, index: int) -> Item:
        item = self.dataset[index]
        if not isinstance(item, (tuple, list)):
            return Item(image=item, label=None)
        return Item(image=item[0], label=self._name(item[1]) if len(item) > 1 else None)

    def _name(self, label: Any) -> str | None:
        if label is None:
            return None
        number = int(label) if hasattr(label, "__int__") else label
        if self._classes is not None and isinstance(number, int):
            return str(self._classes[number])
        return str(number)


def _holds_samples(data: Any) -> bool:
    return len(data) > 0 and isinstance(data[0], Sample)
