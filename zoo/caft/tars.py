"""webdataset tars: the files of a sample share their name up to the first dot of its last part.

``a/0017.jpg`` goes with ``a/0017.cls``, or with a ``a/0017.json`` that has a ``label``, wherever
they are in the tar. The rules are those of webdataset's own reader, which is stricter in one
place: it takes files that are not adjacent for separate samples.

A tar is read twice: names and labels first, then images. Those of an uncompressed tar are read by
their offsets, in the decoding threads; a compressed one is read through.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from zoo.caft.file_read import FileRead, check_size
from zoo.caft.labels import LabelChoice
from zoo.caft.notes import Notes
from zoo.caft.sample import Sample, is_image_suffix, reason_not_read
from zoo.caft.tar_fields import Fields, Group, image_of
from zoo.caft.tar_files import FAILURES, Member, expand, is_plain, is_tar, members_of, read_on
from zoo.inference.formats import PACKAGES
from zoo.util.errors import DatasetError
from zoo.util.files import identity_of
from zoo.util.kinds import kind_of_file


class TarSource:
    """The samples of one or several tars, in the order of their images.

    Args:
        pattern: Path of a tar; ``{000..012}`` in it stands for every number of the range, ``{a,b}``
            for each of the words, and ``*`` and ``?`` for any characters.
        image: The field of the image, such as ``jpg``; by default the only one, or ``jpg``, or the
            only one without a dot.
        label: The field of the label, such as ``cls``, ``txt`` or ``json.species``; by default one
            of :data:`~zoo.caft.tar_fields.TEXTS`, or ``label``, ``cls`` or ``class`` in a ``json``;
            False for no labels.

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
        self._fields = Fields(image, label)
        folders = {str(path.absolute().parent) for path in self.paths}
        self._top = Path(os.path.commonpath(folders))

    def __iter__(self) -> Iterator[Sample]:
        self.notes.clear()
        for path in self.paths:
            try:
                yield from self._samples(path)
            except FAILURES as error:
                if not is_tar(path):
                    raise DatasetError(
                        f"{path} is {kind_of_file(path)}, not a tar",
                        hint="pack the photos as a tar, or give the folder that contains them",
                    ) from error
                raise DatasetError(
                    f"{path} can't be read to its end: {error}",
                    hint="download the tar again; finished images stay in the cache",
                ) from error

    def _samples(self, path: Path) -> Iterator[Sample]:
        """Yields the samples of a tar; of one that is cut off, those before the last."""
        groups: dict[str, Group] = {}
        failure: Exception | None = None
        with path.open("rb") as file:
            unchanged = identity_of(os.fstat(file.fileno()))
            try:
                with tarfile.open(fileobj=file, tarinfo=Member) as tar:
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
            self._fields.check(groups, path)
        if plain:
            for name, label, member in chosen:
                read = FileRead(path, member.offset_data, member.size, unchanged)
                yield Sample(name=name, label=label, read=read, rereadable=True)
        else:
            yield from _read_through(path, chosen)
        if failure is not None:
            raise failure

    def _index(self, tar: tarfile.TarFile, groups: dict[str, Group], path: Path) -> None:
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
                group = groups.pop(key, None) or Group()
                groups[key] = group  # the latest one is the one that a cut may have torn
                group.runs += 1
            last = key
            if group.has(extension):
                raise DatasetError(
                    f"{path} has two files {key}.{extension}",
                    hint="rewrite the tar with a unique name for each sample",
                )
            self._fields.note(tar, member, group, extension)

    def _chosen(
        self, groups: dict[str, Group], path: Path
    ) -> list[tuple[str, str | None, tarfile.TarInfo]]:
        """Returns name, label and image of each sample, in the order of the images."""
        chosen = []
        for key, group in groups.items():
            name = key if len(self.paths) == 1 else f"{self._shard(path)}:{key}"
            if group.runs > 1:
                self.notes.add("put together from files that are not adjacent", name)
            image = image_of(group, name)
            if image is None:
                self.notes.add(f"left out, {_why_no_image(group)}", name)
                continue
            label = self._fields.label_of(group, name)
            if label is None and self._fields.labels and "txt" in group.others:
                self.notes.add(
                    "without a label, but with a txt, which --label-field txt would accept", name
                )
            chosen.append((name, label, group.images[image]))
        return sorted(chosen, key=lambda sample: sample[2].offset)

    def _shard(self, path: Path) -> str:
        return path.absolute().relative_to(self._top).as_posix()


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
    with tarfile.open(path, tarinfo=Member) as tar:
        members = (member for member in members_of(tar) if member.offset in wanted)
        for member in islice(members, len(wanted)):  # not up to where it is cut off
            name, label = wanted[member.offset]
            yield Sample(name=name, label=label, read=_content_of(tar, member))


def _content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    try:
        check_size(member.size)
    except OSError as error:
        return partial(_refused, error)
    file = tar.extractfile(member)
    assert file is not None
    return partial(bytes, file.read())


def _refused(error: OSError) -> bytes:
    raise error


def _why_no_image(group: Group) -> str:
    """Returns why a sample has no image: none at all, or one that needs a package."""
    suffixes = sorted(f".{extension.rpartition('.')[2]}" for extension in group.others)
    needed = [suffix for suffix in suffixes if suffix in PACKAGES and not is_image_suffix(suffix)]
    return reason_not_read(needed[0]) if needed else "because they have no image"
