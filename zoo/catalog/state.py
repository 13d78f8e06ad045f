"""State: what the last build of the site wrote, so that the next rewrites only what changed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.catalog.place import BESIDE
from zoo.catalog.report import ModelReport
from zoo.util.files import write_whole
from zoo.util.loading import read_regular

STATE = ".catalog-state.json"
"""The state's file name in the site."""


class ModelState(BaseModel):
    """A model's pages as last written.

    Attributes:
        index: Digest of the ``index/<model>.json`` that they show.
        files: The pages, relative to the site.
        report: The model's part of the report.
    """

    model_config = ConfigDict(frozen=True)

    index: str
    files: tuple[str, ...]
    report: ModelReport


class SiteState(BaseModel):
    """The site as last written.

    Attributes:
        maker: Digest of the code, the templates and the settings; if it differs, every page is
            written again.
        models: Each model's pages, by model id.
        files: All other files, relative to the site.
    """

    model_config = ConfigDict(frozen=True)

    maker: str = ""
    models: dict[str, ModelState] = {}
    files: tuple[str, ...] = ()

    @property
    def everything(self) -> set[str]:
        """All files, without names that point outside the site."""
        pages = (file for model in self.models.values() for file in model.files)
        return {name for name in {*self.files, *pages} if _is_inside(name)}


def read_state(folder: Path) -> SiteState:
    """Returns the state of a site; an empty one if it is missing or unreadable."""
    try:
        return SiteState.model_validate_json(read_regular(folder / STATE))
    except (OSError, ValidationError):
        return SiteState()


def write(path: Path, data: bytes) -> None:
    """Atomically writes a file if its contents changed."""
    if path.is_file() and path.read_bytes() == data:
        return
    write_whole(path, data)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return False
    return PurePosixPath(BESIDE) not in path.parents  # a link to the repository
