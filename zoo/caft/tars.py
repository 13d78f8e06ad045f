"""webdataset tars: the files of a sample share their name up to the first dot of its last part.

``a/0017.jpg`` goes with ``a/0017.cls``, or with a ``a/0017.json`` that has a ``label``, wherever
they are in the tar. The rules are those of webdataset's own reader, which is stricter in one
place: it takes files that are not adjacent for separate samples.

A tar is read twice: names and labels first, then images. Those of an uncompressed tar are read by
their offsets, in the decoding threads; a compressed one is read through.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.caft.labels import LabelChoice, class_of
from zoo.caft.notes import Notes
from zoo.caft.sample import SUFFIXES, Sample
from zoo.caft.stamps import FileRead, identity_of
from zoo.caft.tar_files import FAILURES, expand, is_plain, members_of, read_on
from zoo.util.errors import DatasetError

TEXTS = ("cls", "class", "label", "label.txt", "cls.txt", "class.txt")
"""Fields that hold a label, first the one that wins; then the keys of a ``json``."""

JSON_KEYS = ("label", "cls", "class")
_LONGEST_LABEL = 1 << 20
_LISTED = 10


@dataclass(slots=True)
class _Group:
    """A sample's files: of its images the place in the tar, of its labels the content."""

    images: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    runs: int = 0

    @property
    def extensions(self) -> set[str]:
        return {*self.images, *self.labels, *self.others}

    def has(self, extension: str) -> bool:
        return extension in self.images or extension in self.labels or extension in self.others


class TarSource:
    """The samples of one or several tars, in the order of their images.

    Args:
        pattern: Path of a tar; ``{000..012}`` in it stands for every number of the range, ``{a,b}``
            for each of the words, and ``*`` and ``?`` for any characters.
        image: The field of the image, such as ``jpg``; by default the only one, or ``jpg``, or the
            only one without a dot.
        label: The field of the label, such as ``cls``, ``txt`` or ``json.species``; by default one
            of :data:`TEXTS`, or ``label``, ``cls`` or ``class`` in a ``json``; False for no labels.

    Attributes:
        notes: What was put together, ignored and left out.

    Raises:
        DatasetError: One of the tars does not exist.
    """

    def __init__(self, pattern: str, image: str | None = None, label: LabelChoice = None) -> None:
        self.paths = [Path(path) for path in expand(pattern)]
        for path in self.paths:
            if not path.is_file():
                raise DatasetError(
                    f"{path}: no such tar",
                    hint="check the path; {000..012}, {a,b}, * and ? in it stand for several tars",
                )
        self.notes = Notes()
        self._image = image
        self._label_choice = label
        field, _, self._key = label.partition(".") if label and _in_json(label) else (label, "", "")
        usual = (*TEXTS, "json")
        self._fields = usual if field is None else (field.lower(),) if field else ()
        folders = {str(path.absolute().parent) for path in self.paths}
        self._top = Path(os.path.commonpath(folders))

    def __iter__(self) -> Iterator[Sample]:
        self.notes.clear()
        for path in self.paths:
            try:
                yield from self._samples(path)
            except FAILURES as error:
                raise DatasetError(
                    f"{path} can't be read to its end: {error}",
                    hint="download the tar again; finished images stay in the cache",
                ) from error

    def _samples(self, path: Path) -> Iterator[Sample]:
        """Yields the samples of a tar; of one that is cut off, those before the last."""
        groups: dict[str, _Group] = {}
        failure: Exception | None = None
        with path.open("rb") as file:
            unchanged = identity_of(os.fstat(file.fileno()))
            try:
                with tarfile.open(fileobj=file) as tar:
                    plain = tar.fileobj is file
                    self._index(tar, groups, path)
                    while not plain and read_on(tar):
                        pass  # the checksum comes at the end
            except FAILURES as error:
                if not groups:
                    raise
                groups.popitem()  # it may lack a file
                failure, plain = error, is_plain(path)
        chosen = self._chosen(groups, path)
        if failure is None:
            self._check_fields(groups, path)
        if plain:
            for name, label, member in chosen:
                read = FileRead(path, member.offset_data, member.size, unchanged)
                yield Sample(name=name, label=label, read=read, rereadable=True)
        else:
            yield from _read_through(path, chosen)
        if failure is not None:
            raise failure

    def _index(self, tar: tarfile.TarFile, groups: dict[str, _Group], path: Path) -> None:
        """Reads the names and labels of a tar, up to where it is cut off."""

        def appended(member: tarfile.TarInfo) -> None:
            self.notes.add(
                "archives appended to a tar, which were read as well, by their first file",
                member.name,
            )

        last = None
        for member in members_of(tar, appended):
            if member.isdir():
                continue
            key, extension = split_name(member.name)
            if reason := _ignored(member, key):
                self.notes.add(reason, member.name)
                continue
            group = groups.get(key)
            if group is None or key != last:
                group = groups.pop(key, None) or _Group()
                groups[key] = group  # the latest one is the one that a cut may have torn
                group.runs += 1
            last = key
            if group.has(extension):
                raise DatasetError(
                    f"{path} has two files {key}.{extension}",
                    hint="write the tar anew, with a name of its own for each sample",
                )
            self._note(tar, member, group, extension)

    def _note(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, group: _Group, extension: str
    ) -> None:
        if self._is_image(extension):
            group.images[extension] = member
        elif self._is_label(extension) and member.size <= _LONGEST_LABEL:
            file = tar.extractfile(member)
            group.labels[extension] = b"" if file is None else file.read()
        else:
            group.others.add(extension)

    def _chosen(
        self, groups: dict[str, _Group], path: Path
    ) -> list[tuple[str, str | None, tarfile.TarInfo]]:
        """Returns name, label and image of each sample, in the order of the images."""
        chosen = []
        for key, group in groups.items():
            name = key if len(self.paths) == 1 else f"{self._shard(path)}:{key}"
            if group.runs > 1:
                self.notes.add("put together from files that are not adjacent", name)
            image = self._image_of(group, name)
            if image is None:
                self.notes.add("left out, because they have no image", name)
                continue
            label = self._label(group, name)
            if label is None and self._fields and "txt" in group.others:
                self.notes.add(
                    "without a label, but with a txt, which --label-field txt would take", name
                )
            chosen.append((name, label, group.images[image]))
        return sorted(chosen, key=lambda sample: sample[2].offset)

    def _check_fields(self, groups: dict[str, _Group], path: Path) -> None:
        """Checks that a tar has the fields that were chosen by name.

        Raises:
            DatasetError: None of its samples has one of them.
        """
        have = {extension for group in groups.values() for extension in group.extensions}
        label = next(iter(self._fields), None) if self._label_choice else None
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

    def _shard(self, path: Path) -> str:
        return path.absolute().relative_to(self._top).as_posix()

    def _is_image(self, extension: str) -> bool:
        if self._image is not None:
            return extension == self._image.lower()
        return f".{extension.rpartition('.')[2]}" in SUFFIXES

    def _is_label(self, extension: str) -> bool:
        return extension in self._fields

    def _image_of(self, group: _Group, name: str) -> str | None:
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

    def _label(self, group: _Group, name: str) -> str | None:
        for kind in self._fields:
            data = group.labels.get(kind)
            if data is None:
                continue
            try:
                value = data.decode().strip()
                if kind == "json":
                    value = _in(json.loads(value), self._key)
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


def split_name(name: str) -> tuple[str, str]:
    """Returns a member's key and its field in lower case; the key is empty if it has none.

    Source: ``base_plus_ext`` of webdataset.
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem and dot else ("", "")


def _ignored(member: tarfile.TarInfo, key: str) -> str | None:
    """Returns why a member belongs to no sample, None if it belongs to one."""
    file = member.name.rpartition("/")[2]
    if file.startswith("._") or member.name.startswith("__MACOSX/"):
        return "ignored sidecars of macOS"
    if file.startswith(".") or re.match(r"__[^/]*__($|/)", member.name):
        return "ignored hidden files and metadata"
    if not member.isreg() or member.issparse():
        return "left out, because they are links or special files"
    return None if key else "ignored files without a suffix"


def _read_through(
    path: Path, chosen: list[tuple[str, str | None, tarfile.TarInfo]]
) -> Iterator[Sample]:
    """Yields the samples of a compressed tar, reading it from its beginning."""
    wanted = {member.offset: (name, label) for name, label, member in chosen}
    with tarfile.open(path) as tar:
        members = (member for member in members_of(tar) if member.offset in wanted)
        for member in islice(members, len(wanted)):  # not up to where it is cut off
            name, label = wanted[member.offset]
            file = tar.extractfile(member)
            assert file is not None
            yield Sample(name=name, label=label, read=_returning(file.read()))


def _in_json(label: str) -> bool:
    return label == "json" or label.startswith("json.")


def _parsed(data: bytes) -> Mapping[str, object]:
    """Returns the values in a ``json``, none if it can't be read or has no names for them."""
    try:
        values = json.loads(data)
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


def _returning(image: bytes) -> Any:
    return lambda: image
