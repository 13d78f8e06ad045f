"""The catalog of a repository, with the last night's report and what manifests could add."""

from __future__ import annotations

from pathlib import Path

from builders.history.nights import last_night
from builders.run.expected import expected
from zoo.catalog.night import NightlyRun
from zoo.catalog.place import Place
from zoo.catalog.site import build_site
from zoo.repository.repository import Repository


def make_site(
    repository: Repository,
    folder: Path,
    base_url: str,
    run: NightlyRun | None = None,
    *,
    manifests: Path,
) -> None:
    """Makes the catalog.

    Args:
        repository: What is shown.
        folder: Where the site goes.
        base_url: Where readers find the repository on the web; may be empty.
        run: For its report; what the runs of the last night say otherwise.
        manifests: Folder of the models that there could be, for the report.
    """
    build_site(
        repository,
        folder,
        Place.parse(base_url, repository.store.url),
        run or last_night(repository),
        expected(repository, manifests),
    )
