"""webdataset tars: a sample's files are adjacent and share their name up to the first dot.

``0017.jpg`` goes with ``0017.cls``, or with a ``0017.json`` that has a ``label``. Tars are read
sequentially with ``tarfile``, so that pipes, compressed tars and tars larger than memory work.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from zoo.caft.sample import SUFFIXES, Sample
from zoo.util.errors import DatasetError

_LABELS = ("cls", "label", "txt", "json")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class TarSource:
    """The samples of one or several tars.

    Args:
        pattern: Path of a tar; ``{000..012}`` in it stands for every number of the range.

    Raises:
        DatasetError: One of the tars does not exist.
    """

    def __init__(self, pattern: str) -> None:
        self.paths = [Path(path) for path in expand(pattern)]
        for path in self.paths:
            if not path.is_file():
                raise DatasetError(f"{path}: no such tar")

    def __iter__(self) -> Iterator[Sample]:
        for path in self.paths:
            try:
                with tarfile.open(path) as tar:
                    yield from self._samples(tar, path)
            except (tarfile.TarError, EOFError, OSError) as error:
                raise DatasetError(
                    f"{path} can't be read to its end: {error}",
                    hint="download the tar again; finished images stay in the cache",
                ) from error

    def _samples(self, tar: tarfile.TarFile, path: Path) -> Iterator[Sample]:
        files = (member for member in _members(tar) if member.isfile())
        for stem, members in groupby(files, key=lambda member: _stem(member.name)):
            data: dict[str, bytes] = {}
            for member in members:
                extension = member.name[len(stem) + 1 :].lower()
                wanted = extension in _LABELS or _is_image(extension)
                if wanted and (file := tar.extractfile(member)) is not None:
                    data[extension] = file.read()
            image = next((data[name] for name in data if _is_image(name)), None)
            if image is None:
                continue
            name = stem if len(self.paths) == 1 else f"{path.name}:{stem}"
            yield Sample(name=name, label=_label(data, name), read=_returning(image))


def expand(pattern: str) -> list[str]:
    """Returns the paths that ``shard-{000..012}.tar`` stands for."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    expanded = (
        f"{pattern[: match.start()]}{n:0{len(first)}d}{pattern[match.end() :]}" for n in numbers
    )
    return [path for part in expanded for path in expand(part)]


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        yield member
        tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all of them
    # tarfile mistakes a broken header for the end. A complete tar ends with a block of zeros.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end marker at byte {tar.offset:,}")


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in SUFFIXES


def _label(data: dict[str, bytes], name: str) -> str | None:
    for kind in _LABELS:
        if kind not in data:
            continue
        try:
            text = data[kind].decode().strip()
            if kind != "json":
                return text or None
            values = json.loads(text)
        except ValueError as error:
            raise DatasetError(f"can't read a label from {name}.{kind}: {error}") from error
        label = values.get("label", values.get("cls")) if isinstance(values, dict) else None
        return None if label is None else str(label)
    return None


def _returning(image: bytes) -> Any:
    return lambda: image
