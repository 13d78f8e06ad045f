"""State: what the last run wrote, so that the next one touches only what changed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.catalog.report import ModelReport
from zoo.util.files import write_whole

STATE = ".catalog-state.json"
"""Its name in the site."""


class ModelState(BaseModel):
    """What was written of a model.

    Attributes:
        index: Digest of ``index/<model>.json`` that it was written from.
        files: Its pages, relative to the site.
        report: What it adds to the report.
    """

    model_config = ConfigDict(frozen=True)

    index: str
    files: tuple[str, ...]
    report: ModelReport


class SiteState(BaseModel):
    """What a site was written from.

    Attributes:
        maker: Digest of the code, the templates and the settings; another one writes all anew.
        models: Id to what was written.
        files: The other files.
    """

    model_config = ConfigDict(frozen=True)

    maker: str = ""
    models: dict[str, ModelState] = {}
    files: tuple[str, ...] = ()

    @property
    def everything(self) -> set[str]:
        """Every file that it names, apart from those that lie outside the site."""
        named = {*self.files, *(file for one in self.models.values() for file in one.files)}
        return {name for name in named if _is_inside(name)}


def read_state(folder: Path) -> SiteState:
    """Returns what the last run wrote; an empty one where that is not known."""
    try:
        return SiteState.model_validate_json((folder / STATE).read_bytes())
    except (OSError, ValidationError):
        return SiteState()


def write(path: Path, data: bytes) -> None:
    """Writes a file whole, or leaves it where it is right already."""
    if path.is_file() and path.read_bytes() == data:
        return
    write_whole(path, data)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
