"""Opens a data set by its path or name; reads folders and list files."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from zoo.caft.files import LISTS, in_utf8, listed_key
from zoo.caft.labels import class_of
from zoo.caft.notes import Notes
from zoo.caft.sample import SUFFIXES, Sample, Source, looks_like_image
from zoo.caft.stamps import FileRead
from zoo.util.errors import DatasetError, UsageError

_TRAINING = frozenset(["train", "training"])
SPLITS = _TRAINING | {"val", "valid", "validation", "dev", "test", "testing", "holdout", "eval"}
"""Names of folders that are splits rather than classes, where a root has no others."""

_SPLIT_NAME = re.compile(r"(?P<split>[a-z]+?)[ _-]?(?:set|split)?[ _-]?\d*", re.IGNORECASE)
"""A split's name with what is often added to it: ``train2017``, ``val_set``."""

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_source(
    data: str | Path | Any,
    *,
    image: str | None = None,
    label: str | None = None,
    split: str | None = None,
) -> Source:
    """Returns the samples of a data set.

    Args:
        data: A folder with a subfolder of images per class, or with images only; a list file with
            ``path`` or ``path,label`` on each line; a webdataset tar, or several as
            ``shard-{000..012}.tar``; ``hf:NAME[:SPLIT]``, or the folder of a Hugging Face data set
            saved to disk; a Hugging Face or torch ``Dataset``; or any iterable of samples.
        image: The column or field of the image, of a Hugging Face data set or a tar.
        label: The column or field of the label.
        split: The split, of a folder or a Hugging Face data set that has several.

    Raises:
        DatasetError: It is none of these or does not exist.
        UsageError: It has no columns, fields or splits to choose from.
    """
    kind = kind_of(data)
    if (image or label) and kind not in (Kind.TAR, Kind.HUB, Kind.TABLE):
        raise UsageError(
            f"{_named(data)} has no columns or fields to choose from",
            hint="--image-column, --label-column, --image-field and --label-field are for Hugging "
            "Face data sets and tars",
        )
    if split and kind not in (Kind.FOLDER, Kind.HUB):
        raise UsageError(
            f"{_named(data)} has no splits to choose from",
            hint="--split is for a folder with train/ and val/, and for Hugging Face data sets",
        )
    match kind:
        case Kind.OBJECT | Kind.TABLE:
            from zoo.caft.datasets import from_object

            return from_object(data, image, label)
        case Kind.HUB:
            from zoo.caft.datasets import from_hub

            return from_hub(str(data).removeprefix("hf:"), image, label, split)
        case Kind.TAR:
            from zoo.caft.tars import TarSource

            return TarSource(str(data), image, label)
        case Kind.FOLDER:
            return folder_source(Path(data), split)
        case Kind.LIST:
            return ListSource(Path(data))
        case _:
            assert_never(kind)


class Kind(Enum):
    """The kinds of data sets."""

    OBJECT = "object"
    TABLE = "table"
    HUB = "hub"
    TAR = "tar"
    FOLDER = "folder"
    LIST = "list"


def kind_of(data: str | Path | Any) -> Kind:
    """Returns the kind of a data set.

    Raises:
        DatasetError: It is none, or does not exist.
    """
    if not isinstance(data, (str, Path)):
        return Kind.TABLE if hasattr(data, "column_names") else Kind.OBJECT
    text, path = str(data), Path(data)
    if text.startswith("hf:"):
        return Kind.HUB
    if text.endswith(TARS) and not path.is_dir():
        return Kind.TAR
    if path.is_dir():
        saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        return Kind.HUB if saved else Kind.FOLDER
    if path.suffix.lower() in LISTS:
        return Kind.LIST
    if not path.exists():
        raise DatasetError(
            f"{path}: no such folder or file",
            hint="a data set is a folder, a list file, a .tar or hf:NAME",
        )
    raise DatasetError(
        f"{path} is neither a folder, a list file ({', '.join(sorted(LISTS))}) nor a tar",
        hint="for a single photo, give the folder that contains it",
    )


def _named(data: Any) -> str:
    return str(data) if isinstance(data, (str, Path)) else f"a {type(data).__name__}"


def folder_source(root: Path, split: str | None = None) -> FolderSource:
    """Returns the samples of a folder, or of one of its splits.

    Raises:
        DatasetError: It has splits and none is chosen, or not this one.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    folders = sorted(name for name, is_dir in _entries(root) if is_dir and not _is_hidden(name))
    if split is not None:
        if split not in folders:
            raise DatasetError(
                f"{root} has no split '{split}'",
                hint=f"it has {', '.join(folders[:10])}" if folders else "it has no folders",
            )
        return FolderSource(root / split)
    if _are_splits(folders):
        raise DatasetError(
            f"the folders {', '.join(folders)} of {root} are splits of a data set, not classes",
            hint=f"choose one with --split {folders[0]}, and give each a cache of its own",
        )
    return FolderSource(root)


def _are_splits(folders: list[str]) -> bool:
    """Whether folders are splits rather than classes: all of them, or two with one for training."""
    names = [_SPLIT_NAME.fullmatch(name) for name in folders]
    splits = {match["split"].lower() for match in names if match} & SPLITS
    if not splits:
        return False
    all_of_them = all(match and match["split"].lower() in SPLITS for match in names)
    return all_of_them or bool(splits & _TRAINING and splits - _TRAINING)


class FolderSource:
    """A folder of images. Its subfolders are the classes; images outside them have no label.

    A file is an image by its suffix, or by its content if it has another.

    Args:
        root: The folder; it is walked in the order of names, one folder at a time.

    Attributes:
        notes: The files that are no images.

    Raises:
        DatasetError: The folder does not exist, or can't be read.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DatasetError(f"{root}: no such folder")
        self.root = root
        self.notes = Notes()

    def __iter__(self) -> Iterator[Sample]:
        self.notes.clear()
        for name, path in self._images(self.root):
            folder, slash, _ = name.partition("/")
            label = class_of(_readable(folder)) if slash else None
            yield Sample(name=name, label=label, read=FileRead(path), path=path, rereadable=True)

    def _images(
        self, folder: Path, within: str = "", above: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, Path]]:
        """Yields the images under a folder, and their names, in the order of their paths.

        Names are built from strings: pathlib takes as long as reading a small file. Links to a
        folder that contains them are not followed.
        """
        real = os.path.realpath(folder)
        if real in above:
            return
        for name, is_dir in _entries(folder):
            path = folder / name
            if _is_hidden(name):
                self._leave_out("ignored hidden files and folders", path)
            elif is_dir:
                yield from self._images(path, f"{within}{name}/", above | {real})
            elif os.path.splitext(name)[1].lower() in SUFFIXES or _starts_like_image(path):
                yield within + name, path
            else:
                suffix = f"with suffix {path.suffix}" if path.suffix else "without a suffix"
                self._leave_out(f"left out, because they are no images: files {suffix}", path)

    def _leave_out(self, kind: str, path: Path) -> None:
        self.notes.add(in_utf8(kind), in_utf8(path.relative_to(self.root).as_posix()))


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Returns the names in a folder in their order, and whether each is a folder.

    Raises:
        DatasetError: The folder can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        raise DatasetError(f"can't read the folder {folder}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _readable(name: str) -> str:
    """Returns a folder's name with escapes for bytes that are not UTF-8: no two become the same."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _starts_like_image(path: Path) -> bool:
    try:
        return looks_like_image(FileRead(path, 0, 16)())
    except OSError:
        return False  # it is shorter, a special file, or may not be read


class ListSource:
    """A list file: a path per line, with its label after a comma (in ``.csv``) or a tab.

    A first line ``path,label`` is a heading, and lines that start with # are skipped.

    Args:
        path: The file; paths in it are relative to its folder, or absolute.

    Raises:
        DatasetError: The file does not exist.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DatasetError(f"{path}: no such list file")
        self.path = path

    def __iter__(self) -> Iterator[Sample]:
        delimiter = "," if self.path.suffix.lower() == ".csv" else "\t"
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            try:
                times: Counter[str] = Counter()
                for number, row in enumerate(csv.reader(file, delimiter=delimiter, strict=True), 1):
                    if sample := self._sample(number, row):
                        times[sample.name] += 1  # a photo may be listed twice, with two labels
                        yield replace(sample, key=listed_key(sample.name, times[sample.name]))
            except UnicodeDecodeError as error:
                raise DatasetError(f"{self.path} is not UTF-8 text: {error.reason}") from error
            except csv.Error as error:
                raise DatasetError(
                    f"{self.path} can't be read as a list: {error}",
                    hint='a name with a quote in it is written "with ""two"" quotes"',
                ) from error

    def _sample(self, number: int, row: list[str]) -> Sample | None:
        if not row or not row[0].strip() or row[0].startswith("#"):
            return None
        name = row[0].strip()
        if any("\n" in value for value in row):
            raise DatasetError(
                f"{self.path}: entry {number} goes over several lines: a quote is not closed",
                hint='a name with a quote in it is written "with ""two"" quotes"',
            )
        if number == 1 and name.lower() in ("path", "file", "image"):
            return None
        if len(row) > 2:
            raise DatasetError(
                f"{self.path}: line {number} has {len(row)} fields, not just a path and a label",
                hint='quote a name that contains the delimiter: "a, b.jpg",cat',
            )
        label = class_of(row[1]) if len(row) == 2 else None
        path = self.path.parent / name
        if not label and "," in name and not path.exists():
            raise DatasetError(
                f"{self.path}: line {number}: there is no file '{name}'",
                hint="only .csv files separate the label by a comma; this file needs a tab",
            )
        return Sample(name=name, label=label, read=FileRead(path), path=path, rereadable=True)
