"""Which of a sample's files in a tar is its image and which its label."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.caft.labels import LabelChoice, class_of
from zoo.caft.sample import is_image_suffix
from zoo.util.errors import DatasetError
from zoo.util.loading import parse_json

TEXTS = ("cls", "class", "label", "label.txt", "cls.txt", "class.txt")
"""Fields that hold a label, first the one that wins; then the keys of a ``json``."""

JSON_KEYS = ("label", "cls", "class")
_LONGEST_LABEL = 1 << 20
_LISTED = 10


@dataclass(slots=True)
class Group:
    """A sample's files by their fields.

    Attributes:
        images: Where its images are in the tar.
        labels: Contents of its labels.
        others: Fields of its other files.
        runs: Number of runs of adjacent files that it consists of.
    """

    images: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    runs: int = 0

    @property
    def extensions(self) -> set[str]:
        """The fields of the sample's files, in lower case."""
        return {*self.images, *self.labels, *self.others}

    def has(self, extension: str) -> bool:
        """Whether the sample has a file of this field."""
        return extension in self.images or extension in self.labels or extension in self.others


class Fields:
    """The fields of images and labels.

    Args:
        image: The field of the image; None for any.
        label: The field of the label; None for the usual ones, False for no labels.

    Attributes:
        labels: Fields that may hold the label, first the one that wins; empty for no labels.
    """

    def __init__(self, image: str | None, label: LabelChoice) -> None:
        self._image, self._choice = image, label
        chosen, _, self._key = (
            label.partition(".") if label and _in_json(label) else (label, "", "")
        )
        usual = (*TEXTS, "json")
        self.labels = usual if chosen is None else (chosen.lower(),) if chosen else ()

    def note(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, group: Group, extension: str
    ) -> None:
        """Adds a file to its sample: an image by its place, a label by its content."""
        if self._is_image(extension):
            group.images[extension] = member
        elif self._is_label(extension) and member.size <= _LONGEST_LABEL:
            file = tar.extractfile(member)
            group.labels[extension] = b"" if file is None else file.read()
        else:
            group.others.add(extension)

    def check(self, groups: dict[str, Group], path: Path) -> None:
        """Checks that a tar has the fields that were chosen by name.

        Raises:
            DatasetError: None of its samples has one of them.
        """
        have = {extension for group in groups.values() for extension in group.extensions}
        label = next(iter(self.labels), None) if self._choice else None
        for chosen in (self._image, label):
            if have and chosen is not None and chosen.lower() not in have:
                raise DatasetError(
                    f"no sample of {path} has the field '{chosen}'",
                    hint=f"they have {', '.join(sorted(have)[:_LISTED])}",
                )
        if not (have and self._key):
            return
        parsed = [_parsed(group.labels["json"]) for group in groups.values() if group.labels]
        if all(_in(values, self._key) is None for values in parsed):
            keys = dict.fromkeys(key for values in parsed for key in values)
            raise DatasetError(
                f"no json of {path} has the key '{self._key}'",
                hint=f"they have {', '.join(list(keys)[:_LISTED])}" if keys else None,
            )

    def _is_image(self, extension: str) -> bool:
        if self._image is not None:
            return extension == self._image.lower()
        return is_image_suffix(f".{extension.rpartition('.')[2]}")

    def _is_label(self, extension: str) -> bool:
        return extension in self.labels

    def label_of(self, group: Group, name: str) -> str | None:
        """Returns a sample's label, None if it has none.

        Raises:
            DatasetError: It can't be read.
        """
        for kind in self.labels:
            data = group.labels.get(kind)
            if data is None:
                continue
            try:
                value = data.decode().strip()
                if kind == "json":
                    value = _in(parse_json(value), self._key)
            except (ValueError, RecursionError) as error:
                raise DatasetError(
                    f"can't read a label from {name}.{kind}: {error}",
                    hint="labels are UTF-8 text; choose another field with --label-field, or leave "
                    "labels out with --no-labels",
                ) from error
            label = class_of(value, of=name)
            if label is not None:
                return label
        return None


def image_of(group: Group, name: str) -> str | None:
    """Returns a sample's field of the image, None if it has none.

    Raises:
        DatasetError: It has several, and none of them stands out.
    """
    images = list(group.images)
    bare = [extension for extension in images if "." not in extension]
    for fit in (images, [x for x in bare if x in ("jpg", "jpeg")], bare):
        if len(fit) == 1:
            return fit[0]
    if not images:
        return None
    raise DatasetError(
        f"{name} has {len(images)} images: {', '.join(images)}",
        hint="choose one with --image-field; if they are different samples, name them without "
        "dots: a sample's name ends at its first dot",
    )


def _in_json(label: str) -> bool:
    return label == "json" or label.startswith("json.")


def _parsed(data: bytes) -> Mapping[str, object]:
    """Returns the values in a ``json``, none if it can't be read or has no names for them."""
    try:
        values = parse_json(data)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _in(values: Any, key: str) -> Any:
    """Returns the label in a ``json``: under a key, or under the first of the usual ones.

    The key ``a.b`` is that of ``{"a": {"b": ...}}``, unless there is an ``a.b``.
    """
    if not isinstance(values, dict):
        return None
    for name in (key,) if key else JSON_KEYS:
        if values.get(name) is not None:
            return values[name]
    first, dot, rest = key.partition(".")
    return _in(values.get(first), rest) if dot and rest else None
