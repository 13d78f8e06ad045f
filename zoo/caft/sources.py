"""Opens a data set by its path or name; reads folders and list files."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.caft.files import LISTS, in_utf8, listed_key
from zoo.caft.sample import SUFFIXES, Sample, Source
from zoo.caft.stamps import FileRead
from zoo.util.errors import DatasetError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_source(data: str | Path | Any) -> Source:
    """Returns the samples of a data set.

    Args:
        data: A folder with a subfolder of images per class, or with images only; a list file with
            ``path`` or ``path,label`` on each line; a webdataset tar, or several as
            ``shard-{000..012}.tar``; ``hf:NAME[:SPLIT]``, or the folder of a Hugging Face data set
            saved to disk; a Hugging Face or torch ``Dataset``; or any iterable of samples.

    Raises:
        DatasetError: It is none of these or does not exist.
    """
    if not isinstance(data, (str, Path)):
        from zoo.caft.datasets import from_object

        return from_object(data)
    text = str(data)
    if text.startswith("hf:"):
        from zoo.caft.datasets import from_hub

        return from_hub(text.removeprefix("hf:"))
    if text.endswith(TARS):
        from zoo.caft.tars import TarSource

        return TarSource(text)
    path = Path(text)
    if path.is_dir():
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            from zoo.caft.datasets import from_hub

            return from_hub(text)
        return FolderSource(path)
    if path.suffix.lower() in LISTS:
        return ListSource(path)
    if not path.exists():
        raise DatasetError(
            f"{path}: no such folder or file",
            hint="a data set is a folder, a list file, a .tar or hf:NAME",
        )
    raise DatasetError(
        f"{path} is neither a folder, a list file ({', '.join(sorted(LISTS))}) nor a tar",
        hint="for a single photo, give the folder that contains it",
    )


class FolderSource:
    """A folder of images. Its subfolders are the classes; images outside them have no label.

    Args:
        root: The folder; it is walked in the order of names, one folder at a time.

    Raises:
        DatasetError: The folder does not exist.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DatasetError(f"{root}: no such folder")
        self.root = root

    def __iter__(self) -> Iterator[Sample]:
        for path in _images(self.root):
            name = path.relative_to(self.root).as_posix()
            label, slash, _ = name.partition("/")
            label = in_utf8(label) if slash else ""
            read = FileRead(path)
            yield Sample(name=name, label=label or None, read=read, path=path, rereadable=True)


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
                for number, row in enumerate(csv.reader(file, delimiter=delimiter), 1):
                    if sample := self._sample(number, row):
                        times[sample.name] += 1  # a photo may be listed twice, with two labels
                        yield replace(sample, key=listed_key(sample.name, times[sample.name]))
            except UnicodeDecodeError as error:
                raise DatasetError(f"{self.path} is not UTF-8 text: {error.reason}") from error

    def _sample(self, number: int, row: list[str]) -> Sample | None:
        if not row or not row[0].strip() or row[0].startswith("#"):
            return None
        name = row[0].strip()
        if number == 1 and name.lower() in ("path", "file", "image"):
            return None
        if len(row) > 2:
            raise DatasetError(
                f"{self.path}: line {number} has {len(row)} fields, not just a path and a label",
                hint='quote a name that contains the delimiter: "a, b.jpg",cat',
            )
        label = row[1].strip() if len(row) == 2 else ""
        path = self.path.parent / name
        if not label and "," in name and not path.exists():
            raise DatasetError(
                f"{self.path}: line {number}: there is no file '{name}'",
                hint="only .csv files separate the label by a comma; this file needs a tab",
            )
        return Sample(
            name=name, label=label or None, read=FileRead(path), path=path, rereadable=True
        )


def _images(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yields the images under a folder in the order of their paths, without hidden files.

    Links to a folder that contains them are not followed.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        visible = sorted(
            (entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")
        )
    for name, is_dir in visible:
        if is_dir:
            yield from _images(folder / name, above | {real})
        elif Path(name).suffix.lower() in SUFFIXES:
            yield folder / name
