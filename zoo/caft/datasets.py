"""Sources for the data sets of other libraries: Hugging Face ``datasets`` and torch ``Dataset``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zoo.caft.file_read import FileRead
from zoo.caft.labels import NO_CLASS_HINT, LabelChoice, LabelError, class_of, own_class
from zoo.caft.notes import Notes
from zoo.caft.sample import Item, Sample, Source
from zoo.util.causes import cause_of
from zoo.util.errors import DatasetError, MissingPackageError, RunError, UsageError


def from_object(data: Any, image: str | None = None, label: LabelChoice = None) -> Source:
    """Returns the samples of a Hugging Face ``Dataset``, a torch ``Dataset``, or an iterable.

    Raises:
        DatasetError: It is none of these, or can be iterated only once.
    """
    if isinstance(getattr(data, "column_names", None), Mapping):
        splits = ", ".join(data)
        raise DatasetError(
            f"a {type(data).__name__} is several data sets: {splits}",
            hint=f"pass one of them, such as dataset['{next(iter(data), 'train')}']",
        )
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return HuggingFaceSource(data, image, label)
    if isinstance(data, Mapping) or hasattr(data, "iloc"):
        raise DatasetError(
            f"a {type(data).__name__} is not a data set: it has no items by number",
            hint="pass pairs of path and label, such as list(zip(frame.path, frame.label))",
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not _holds_samples(data):
        return TorchSource(data, labels=label is not False)
    if isinstance(data, Iterator):
        raise DatasetError(
            f"a {type(data).__name__} can be iterated only once; resuming iterates it again",
            hint="pass a list, or an object whose __iter__ starts from the beginning",
        )
    if isinstance(data, Iterable):
        return SampleSource(data, labels=label is not False)
    raise DatasetError(
        f"an object of type {type(data).__name__} is not a data set",
        hint="a data set has __len__ and __getitem__, or yields zoo.caft.sample.Sample",
    )


def described(data: Any) -> str:
    """Returns the name of a data set that is an object: its type, and which split of what it is."""
    facts = {name: getattr(data, name, None) for name in ("root", "image_set", "train", "split")}
    facts["name"] = getattr(getattr(data, "info", None), "dataset_name", None)
    stated = [f"{name}={value}" for name, value in facts.items() if _is_plain(value)]
    part = getattr(data, "dataset", None)
    if part is not None and hasattr(part, "__getitem__"):
        stated.append(f"of {described(part)}")
    return " ".join([type(data).__name__, *stated])


def _is_plain(value: Any) -> bool:
    """Whether a value names something, rather than being an object with an address in memory."""
    return isinstance(value, (str, int, os.PathLike)) or type(value).__name__ == "NamedSplit"


def from_hub(
    name: str, image: str | None = None, label: LabelChoice = None, split: str | None = None
) -> Source:
    """Opens a data set of Hugging Face ``datasets``, from disk or from the hub.

    Args:
        name: ``NAME[:SPLIT]``: a folder written by ``save_to_disk``, or a name on the hub.
        image: The image column.
        label: The label column.
        split: The split, if it is not in the name; by default ``train``.

    Raises:
        MissingPackageError: ``datasets`` is not installed.
        DatasetError: There is no such data set or split.
        UsageError: Two splits are named.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError(
            "datasets is not installed", hint="pip install datasets"
        ) from error
    name, _, named = name.partition(":")
    if named and split and named != split:
        raise UsageError(f"hf:{name}:{named} names another split than --split {split}")
    split = named or split
    try:
        if Path(name).is_dir():
            loaded = _split_of(name, datasets.load_from_disk(name), split)
        else:
            loaded = datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError, ConnectionError) as error:
        reason = cause_of(error)
        hint = (
            "a folder of photos is given without hf:"
            if Path(name).is_dir()
            else "check the name, the split and the network; or save the data set with "
            "save_to_disk and give its folder"
        )
        raise DatasetError(f"can't open hf:{name}: {reason}", hint=hint) from error
    source = HuggingFaceSource(loaded, image, label)
    if split is None:
        for other in _other_splits(loaded):
            source.notes.add("not read, because --split names no split", other)
    return source


def _other_splits(dataset: Any) -> Iterator[str]:
    """Yields the names of the splits that belong to the same data set."""
    splits = getattr(getattr(dataset, "info", None), "splits", None) or {}
    own = str(getattr(dataset, "split", None) or "")
    yield from (name for name in splits if own and name != own)


def _split_of(name: str, loaded: Any, split: str | None) -> Any:
    """Returns a split of what was saved in a folder.

    Raises:
        DatasetError: It has no such split, or several, and none is chosen.
    """
    if isinstance(loaded, Mapping):
        if split is None and len(loaded) == 1:
            return next(iter(loaded.values()))
        names = ", ".join(loaded)
        if split is None:
            raise DatasetError(
                f"{name} is several data sets: {names}",
                hint=f"choose one with --split {next(iter(loaded), 'train')}, and use a separate "
                "cache for each",
            )
        if split not in loaded:
            raise DatasetError(f"{name} has no split '{split}'", hint=f"it has {names}")
        return loaded[split]
    saved = getattr(loaded, "split", None)
    if split not in (None, "train" if saved is None else str(saved)):
        what = "a data set without splits" if saved is None else f"the split '{saved}'"
        raise DatasetError(f"{name} has no split '{split}': it is {what}")
    return loaded


class HuggingFaceSource:
    """A Hugging Face ``Dataset``: its image column, and its label column if it has one.

    Images are taken as they are stored, undecoded, so that they are decoded as files are.

    Args:
        dataset: The data set; one that streams is read in order.
        image: The image column; by default ``image``, else the only one of type ``Image``.
        label: The label column; by default ``label``, else ``labels``, else the only one of type
            ``ClassLabel``; False for no labels.

    Attributes:
        notes: The columns that may be labels, if there is none.

    Raises:
        DatasetError: The data set lacks one of these columns, has several that fit, or has labels
            that are no classes.
    """

    def __init__(self, dataset: Any, image: str | None = None, label: LabelChoice = None) -> None:
        self.notes = Notes()
        if not isinstance(dataset.features, Mapping):
            raise DatasetError(
                "the data set does not say the types of its columns",
                hint="cast it: dataset.cast(datasets.Features(...))",
            )
        kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
        self.image = image or _column(kinds, ("image",), "Image", "--image-column")
        self.label = self._label_column(kinds, dataset.features, label)
        if self.image is None:
            raise DatasetError(
                f"the data set has no column of images: it has {', '.join(kinds)}",
                hint="name it with --image-column",
            )
        for column in (self.image, self.label):
            if column is not None and column not in kinds:
                raise DatasetError(
                    f"the data set has no column '{column}'", hint=f"it has {', '.join(kinds)}"
                )
        self._names = self._classes(dataset.features)
        self.dataset = self._stored(dataset, kinds)
        only_labels = getattr(self.dataset, "select_columns", None)
        self._labels = only_labels([self.label]) if only_labels and self.label else None

    def __iter__(self) -> Iterator[Sample]:
        if hasattr(self.dataset, "__len__"):
            return map(self._sample, range(len(self.dataset)))
        return self._stream()

    def __len__(self) -> int:
        return len(self.dataset)

    def sample_at(self, index: int) -> Sample:
        """Returns a sample by its number."""
        return self._sample(index)

    def _sample(self, index: int) -> Sample:
        label, read = self._label(index), partial(self._read, index)
        return Sample(name=f"{index:09d}", label=label, read=read, rereadable=True)

    def _stream(self) -> Iterator[Sample]:
        for index, row in enumerate(self.dataset):
            name = f"{index:09d}"
            value = None if self.label is None else row[self.label]
            read = partial(_bytes_of, row[self.image])
            yield Sample(name=name, label=class_of(value, self._names, name), read=read)

    def _label_column(
        self, kinds: Mapping[str, str], features: Any, chosen: LabelChoice
    ) -> str | None:
        """Returns the label column, None if there is none; notes what may be it."""
        if chosen is False:
            return None
        column = chosen or _column(kinds, ("label", "labels"), "ClassLabel", "--label-column")
        if column is None:
            for name in kinds:
                if str(getattr(features[name], "dtype", "")).startswith(("int", "str", "large")):
                    self.notes.add("no label; columns that --label-column would accept", name)
        return column

    def _read(self, index: int) -> Any:
        return _bytes_of(self.dataset[index][self.image])

    def _label(self, index: int) -> str | None:
        if self.label is None:
            return None
        rows = self.dataset if self._labels is None else self._labels
        return class_of(rows[index][self.label], self._names, f"row {index}")

    def _classes(self, features: Any) -> Any:
        """Returns the names of the classes, None if there are none.

        Raises:
            LabelError: The column's type is not that of classes.
        """
        feature = features.get(self.label)
        dtype = str(getattr(feature, "dtype", ""))
        if self.label is not None and not dtype.startswith(("int", "uint", "str", "large", "bool")):
            kind = dtype if dtype.startswith("float") else type(feature).__name__
            raise LabelError(
                f"the label column '{self.label}' is of type {kind}, which does not name classes",
                hint=f"choose another with --label-column; {NO_CLASS_HINT}",
            )
        return getattr(feature, "names", None)

    def _stored(self, dataset: Any, kinds: Mapping[str, str]) -> Any:
        """Returns the data set with its images undecoded and values as Python has them."""
        if hasattr(dataset, "with_format"):
            dataset = dataset.with_format(None)
        if kinds[str(self.image)] != "Image":
            return dataset
        feature = copy(dataset.features[self.image])
        feature.decode = False
        return dataset.cast_column(self.image, feature)


def _column(kinds: Mapping[str, str], names: tuple[str, ...], kind: str, option: str) -> str | None:
    """Returns the column of a name, else the only one of a type; None if there is none.

    Raises:
        DatasetError: There are several of the type.
    """
    for name in names:
        if name in kinds:
            return name
    fit = [name for name, other in kinds.items() if other == kind]
    if len(fit) > 1:
        raise DatasetError(
            f"the data set has several columns of type {kind}: {', '.join(fit)}",
            hint=f"choose one with {option}",
        )
    return fit[0] if fit else None


def _bytes_of(image: Any) -> Any:
    """Returns the bytes of an undecoded image; anything else as it is.

    Raises:
        RunError: There is no image.
    """
    if image is None:
        raise RunError("there is no image")
    if isinstance(image, Mapping) and {"bytes", "path"} <= set(image):
        if image["bytes"] is not None:
            return image["bytes"]
        return _of_file(image["path"])
    return _of_file(image)


class TorchSource:
    """A torch ``Dataset`` with a length, or any sequence of images or ``(image, label)`` pairs.

    Items are loaded in the decoding threads, labels included. Images are Pillow images, paths,
    uint8 pixels, or preprocessed float32 input ``(3, H, W)``. Items may also be mappings with an
    ``image`` and a ``label``.

    Args:
        dataset: The data set; its ``classes``, if any, name the labels.
        labels: Whether to take the labels.
    """

    def __init__(self, dataset: Any, *, labels: bool = True) -> None:
        self.dataset = dataset
        self._labels = labels
        self._classes = _classes_of(dataset)

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, range(len(self.dataset)))

    def __len__(self) -> int:
        return len(self.dataset)

    def sample_at(self, index: int) -> Sample:
        """Returns a sample by its number."""
        return self._sample(index)

    def _sample(self, index: int) -> Sample:
        return Sample(name=f"{index:09d}", label=None, read=partial(self._read, index))

    def _read(self, index: int) -> Item:
        item = self.dataset[index]
        if isinstance(item, Mapping):
            image, label = _of_mapping(item)
        elif isinstance(item, (tuple, list)):
            image, label = item[0] if item else None, item[1] if len(item) > 1 else None
        else:
            image, label = item, None
        if image is None:
            raise RunError("there is no image")
        named = class_of(label, self._classes, f"item {index}") if self._labels else None
        return Item(image=_of_file(image), label=named)


class SampleSource:
    """An iterable of samples.

    Args:
        samples: The samples.
        labels: Whether to take their labels.
    """

    def __init__(self, samples: Iterable[Any], *, labels: bool = True) -> None:
        self._samples = samples
        self._labels = labels

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._samples:
            if not isinstance(sample, Sample):
                raise DatasetError(
                    f"a {type(self._samples).__name__} yields items of type "
                    f"{type(sample).__name__}, not samples",
                    hint="pass the data set that it loads, or yield zoo.caft.sample.Sample",
                )
            yield _checked(sample if self._labels else replace(sample, label=None))


def _checked(sample: Sample) -> Sample:
    """Returns a sample of somebody else's code, with its label as a data set's own has it.

    Raises:
        DatasetError: Its name is no string, its image can't be read, or its label is no class.
    """
    if not isinstance(sample.name, str) or not isinstance(sample.key, str):
        raise DatasetError(
            f"a sample's name is of type {type(sample.name).__name__}, and its key of type "
            f"{type(sample.key).__name__}: both must be strings",
            hint="convert them with str() where the samples are made",
        )
    if not callable(sample.read):
        raise DatasetError(
            f"{sample.name}: the sample's read is of type {type(sample.read).__name__}",
            hint="read is a function without arguments that returns the image",
        )
    label = own_class(sample.label, sample.name)
    return sample if label == sample.label else replace(sample, label=label)


def _of_mapping(item: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Returns image and label of an item that has names for them.

    Raises:
        RunError: It has no image.
    """
    images = [name for name in ("image", "img", "pixel_values") if name in item]
    labels = [name for name in ("label", "labels", "target") if name in item]
    if not images:
        raise RunError(f"the item has no 'image': it has {', '.join(map(str, item))}")
    return item[images[0]], item[labels[0]] if labels else None


def _classes_of(dataset: Any) -> Any:
    """Returns the names of a torch data set's classes, also below a ``Subset``; None if unknown."""
    for _ in range(8):
        classes = getattr(dataset, "classes", None)
        if classes is not None:
            return classes
        dataset = getattr(dataset, "dataset", None)
    return None


def _of_file(image: Any) -> Any:
    """Returns the bytes of an image that is given by its path; any other as it is."""
    return FileRead(image)() if isinstance(image, (str, Path)) else image


def _holds_samples(data: Any) -> bool:
    try:
        return len(data) > 0 and isinstance(data[0], Sample)
    except Exception:  # a data set's own code may raise anything; the item is left out later
        return False
