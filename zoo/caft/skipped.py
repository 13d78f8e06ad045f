"""Images that a pass skips, and data sets that have none that it can use."""

from __future__ import annotations

from collections.abc import Callable

from zoo.caft.lists import ListSource
from zoo.caft.notes import notes_of
from zoo.caft.sample import Source
from zoo.caft.sources import A_DATA_SET, FolderSource
from zoo.inference.formats import INSTALL, extra_suffixes
from zoo.util.errors import DatasetError
from zoo.util.names import counted

Bad = Callable[[str, str], None]
"""Called with the name of each skipped image and the reason."""

_REASONS = 3  # reasons that an error names


class Skipped:
    """Tells which images are skipped, and remembers a few reasons.

    Args:
        tell: Called for each of them.
    """

    def __init__(self, tell: Bad) -> None:
        self._tell = tell
        self._first: dict[str, str] = {}
        """The first image that was skipped for a reason."""

    def __call__(self, name: str, reason: str) -> None:
        """Notes an image and the reason."""
        if len(self._first) < _REASONS:
            self._first.setdefault(reason, name)
        self._tell(name, reason)

    def nothing_usable(self, name: str, source: Source, number: int) -> DatasetError:
        """Returns the error of a data set whose images have all been skipped."""
        reasons = "".join(f"\n  {first}: {reason}" for reason, first in self._first.items())
        return DatasetError(
            f"{name} has no usable images; {counted(number, 'image')} skipped:{reasons}",
            hint=_hint_of(source),
        )


def has_any(source: Source, name: str) -> None:
    """Checks that a data set has an image, before an engine is loaded or a folder created.

    Raises:
        DatasetError: It has none.
    """
    if next(iter(source), None) is not None:
        return
    ignored = "; ".join(notes_of(source))
    raise DatasetError(
        f"{name} has no images" + (f": {ignored}" if ignored else ""), hint=_hint_of(source)
    )


def _hint_of(source: Source) -> str:
    """Returns what a data set of a kind that has no usable images should be."""
    if isinstance(source, FolderSource):
        extra = ", .heic, .jxl" if extra_suffixes() else f"; .heic and .jxl after {INSTALL}"
        return (
            "supported images in the folder and its subfolders: .jpg, .png, .webp, .avif, .bmp, "
            f".tif, .gif, .jp2{extra}"
        )
    if isinstance(source, ListSource):
        return (
            f"{source.path.name} was read as a list file: a path per line, from its folder, and a "
            f"label after {source.delimiter_words} if there are labels; {A_DATA_SET}"
        )
    return "check the data set: it needs at least one image that can be read"
