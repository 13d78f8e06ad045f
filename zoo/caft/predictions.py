"""Predicts photos and folders of photos with a head, some at a time, in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.caft.augment import Augmentation
from zoo.caft.card import Identity
from zoo.caft.decode import cores
from zoo.caft.feed import open_feed
from zoo.caft.file_read import FileRead
from zoo.caft.head import Floats, Head
from zoo.caft.notes import Notes
from zoo.caft.runs import FeedRuns
from zoo.caft.sample import Sample
from zoo.caft.sources import FolderSource
from zoo.inference.extractor import Extractor
from zoo.util.errors import DatasetError

NO_PHOTO = "name photos, or a folder that has some in it or its subfolders"
"""What to do where none of the given photos can be used."""

Skipped = Callable[[str, str, bool], None]
"""Called with a photo that can't be used, the reason, and whether it was named itself."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a head predicts of a photo.

    Attributes:
        photo: Its path.
        outputs: What :meth:`zoo.caft.head.Head.outputs` returns of it, ``(outputs,)``.
        label: The name of the subfolder that it is in, if a folder with subfolders was given.
    """

    photo: str
    outputs: Floats
    label: str | None


class PhotoPaths:
    """Photos and folders by their paths, as a source of samples.

    Args:
        paths: Files, and folders that are walked with their subfolders.

    Attributes:
        notes: What was left out of the folders.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.folders = {path: FolderSource(Path(path)) for path in paths if os.path.isdir(path)}

    def __iter__(self) -> Iterator[Sample]:
        for path in self.paths:
            folder = self.folders.get(path)
            if folder is None:
                yield Sample(name=path, label=None, read=FileRead(path), rereadable=True)
                continue
            for sample in folder:
                yield Sample(
                    name=os.path.join(path, sample.name),
                    label=sample.label,
                    read=sample.read,
                    rereadable=True,
                    key=path,  # tells photos of folders from those that were named themselves
                )

    @property
    def notes(self) -> tuple[Notes, ...]:
        """What was left out of each folder."""
        return tuple(folder.notes for folder in self.folders.values())

    def check(self) -> None:
        """Checks that each folder has a photo.

        Raises:
            DatasetError: One has none; names what it has.
        """
        for path, folder in self.folders.items():
            if next(iter(folder), None) is None:
                left_out = "; ".join(folder.notes.lines)
                raise DatasetError(
                    f"{path} has no photos" + (f": {left_out}" if left_out else ""),
                    hint=NO_PHOTO,
                )


def photo_features(
    extractor: Extractor, identity: Identity, photos: PhotoPaths, on_skipped: Skipped
) -> Iterator[tuple[list[Sample], Floats]]:
    """Yields the photos of each batch that can be used, and their features.

    Memory does not grow with the number of photos.

    Args:
        extractor: The backbone.
        identity: The settings of the cache whose rows the features are to resemble.
        photos: The photos.
        on_skipped: Called for each photo that can't be used.

    Raises:
        RunError: The engine failed.
        DatasetError: A folder can't be read.
    """
    named = None if photos.folders else max(1, len(photos.paths))  # else a large number
    with (
        open_feed(
            extractor,
            Augmentation(),
            samples=min(named or extractor.batch, extractor.batch),
            workers=min(named or cores(), cores()),
            decode="auto" if identity.decode == "exact" else "fast",
            exif=identity.exif,
        ) as feed,
        closing(FeedRuns(feed).results(photos)) as results,
    ):
        for outcomes, features, _ in results:
            for outcome in outcomes:
                if outcome.error is not None:
                    on_skipped(outcome.sample.name, outcome.error, not outcome.sample.key)
            good = [number for number, outcome in enumerate(outcomes) if outcome.error is None]
            if good:
                yield [outcomes[number].sample for number in good], np.asarray(features)[good]


def predictions(
    head: Head, extractor: Extractor, photos: PhotoPaths, on_skipped: Skipped
) -> Iterator[Prediction]:
    """Yields what a head predicts of photos, without those that can't be used.

    Args:
        head: The head.
        extractor: The backbone, which :meth:`zoo.caft.head.Head.check` has checked.
        photos: The photos.
        on_skipped: Called for each photo that can't be used.

    Raises:
        HeadError: Outputs are not finite numbers.
        RunError: The engine failed.
        DatasetError: A folder can't be read.
    """
    for samples, features in photo_features(extractor, head.card.identity, photos, on_skipped):
        for sample, row in zip(samples, head.outputs(features), strict=True):
            yield Prediction(photo=sample.name, outputs=row, label=sample.label)
