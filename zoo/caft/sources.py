"""Opens a data set by its path or name; reads folders."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from zoo.caft.file_read import FileRead
from zoo.caft.files import LISTS, in_utf8
from zoo.caft.labels import LabelChoice, named
from zoo.caft.lists import ListSource
from zoo.caft.notes import Notes
from zoo.caft.sample import (
    Sample,
    Source,
    is_image_suffix,
    looks_like_image,
    reason_not_read,
)
from zoo.util.errors import DatasetError, UsageError
from zoo.util.faults import check_fault, persistently
from zoo.util.kinds import kind_of_file
from zoo.util.names import enumerated

_TRAINING = frozenset(["train", "training"])
SPLITS = _TRAINING | {"val", "valid", "validation", "dev", "test", "testing", "holdout", "eval"}
"""Names of folders that are splits rather than classes, where a root has no others."""

_SPLIT_NAME = re.compile(r"(?P<split>[a-z]+?)[ _-]?(?:set|split)?[ _-]?\d*", re.IGNORECASE)
"""A split's name with what is often added to it: ``train2017``, ``val_set``."""

A_DATA_SET = "a data set is a folder, a list file, a .tar or hf:NAME"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:")
_ZSTD = b"\x28\xb5\x2f\xfd"

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_source(
    data: str | Path | Any,
    *,
    image: str | None = None,
    label: LabelChoice = None,
    split: str | None = None,
) -> Source:
    """Returns the samples of a data set.

    Args:
        data: A folder with a subfolder of images per class, or with images only; a list file with
            ``path`` or ``path,label`` on each line; a webdataset tar, or several as
            ``shard-{000..012}.tar``; ``hf:NAME[:SPLIT]``, or the folder of a Hugging Face data set
            saved to disk; a Hugging Face or torch ``Dataset``; or any iterable of samples.
        image: The column or field of the image, of a Hugging Face data set or a tar.
        label: The column or field of the label; False for a cache without labels.
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
            return folder_source(Path(data), split, labels=label is not False)
        case Kind.LIST:
            return ListSource(Path(data), labels=label is not False)
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
    _check_name(text)
    if text.lower().endswith(TARS) and not os.path.isdir(path):
        return Kind.TAR
    if os.path.isdir(path):
        saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        return Kind.HUB if saved else Kind.FOLDER
    if path.suffix.lower() in LISTS:
        return Kind.LIST
    return _kind_of_file(path)


def _check_name(name: str) -> None:
    """Checks that the name of a data set may be a path.

    Raises:
        DatasetError: It is empty, a URL, or a command as webdataset has them.
    """
    if not name.strip():
        raise DatasetError("the name of the data set is empty", hint=A_DATA_SET)
    if _URL.match(name):
        raise DatasetError(
            f"{name} is not a path; data sets are read from files",
            hint=f"download it and give its path; {A_DATA_SET}",
        )


def _kind_of_file(path: Path) -> Kind:
    """Returns the kind of a file whose name does not tell it.

    Raises:
        DatasetError: It is no data set, or does not exist.
    """
    if not os.path.exists(path):
        raise DatasetError(f"{path}: no such folder or file", hint=A_DATA_SET)
    if path.is_file():
        from zoo.caft.tar_files import is_tar

        if is_tar(path):
            return Kind.TAR
        if _start_of(path, 4) == _ZSTD:
            raise DatasetError(
                f"{path} is compressed by zstd, which is not supported",
                hint=f"unpack it: zstd -d {shlex.quote(str(path))}",
            )
    kind = kind_of_file(path)
    is_photo = kind.endswith(" image") or is_image_suffix(path.suffix.lower())
    raise DatasetError(
        f"{path} is {kind}, and no data set",
        hint="for a single photo, give the folder that contains it"
        if is_photo
        else f"{A_DATA_SET}; the name of a list ends in {enumerated(sorted(LISTS), 'or')}",
    )


def _named(data: Any) -> str:
    return str(data) if isinstance(data, (str, Path)) else f"a {type(data).__name__}"


def folder_source(root: Path, split: str | None = None, *, labels: bool = True) -> FolderSource:
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
        return FolderSource(root / split, labels=labels)
    if _are_splits(folders):
        raise DatasetError(
            f"the folders {', '.join(folders)} of {root} are splits of a data set, not classes",
            hint=f"choose one with --split {folders[0]}, and use a separate cache for each",
        )
    return FolderSource(root, labels=labels)


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
        labels: Whether the folders are classes.

    Attributes:
        notes: The files that are no images.

    Raises:
        DatasetError: The folder does not exist, or can't be read.
    """

    def __init__(self, root: Path, *, labels: bool = True) -> None:
        if not root.is_dir():
            raise DatasetError(f"{root}: no such folder")
        self.root = root
        self._labels = labels
        self.notes = Notes()

    def __iter__(self) -> Iterator[Sample]:
        self.notes.clear()
        for name, path in self._images(self.root):
            folder, slash, _ = name.partition("/")
            label = named(_readable(folder)) if slash and self._labels else None
            yield Sample(name=name, label=label, read=FileRead(path), rereadable=True)

    def _images(
        self, folder: Path, within: str = "", above: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, str]]:
        """Yields the names and paths of the images under a folder, in the order of their paths.

        Both are strings: pathlib takes as long as reading a small file. Links to a folder that
        contains them are not followed.
        """
        real = os.path.realpath(folder)
        if real in above:
            return
        for name, is_dir in _entries(folder):
            path = os.path.join(folder, name)
            if _is_hidden(name):
                self._leave_out("ignored hidden files and folders", path)
            elif is_dir:
                yield from self._images(Path(path), f"{within}{name}/", above | {real})
            elif is_image_suffix(os.path.splitext(name)[1].lower()):
                yield within + name, path
            else:
                start = _start_of(path, 16)
                if looks_like_image(start):
                    yield within + name, path
                    continue
                suffix = Path(name).suffix
                files = f"files with suffix {suffix}" if suffix else "files without a suffix"
                why = reason_not_read(suffix.lower(), start)
                self._leave_out(f"left out, {why}: {files}", path)

    def _leave_out(self, kind: str, path: str) -> None:
        self.notes.add(in_utf8(kind), in_utf8(Path(path).relative_to(self.root).as_posix()))


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
    except OSError as error:  # a link to itself
        check_fault(error, entry.path)
        return False


def _readable(name: str) -> str:
    """Returns a folder's name with escapes for bytes that are not UTF-8: no two become the same."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _start_of(path: str | Path, size: int) -> bytes:
    try:
        return persistently(FileRead(path, 0, size), str(path))
    except OSError:
        return b""  # it is shorter, a special file, or may not be read
