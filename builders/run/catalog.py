"""Builds the catalog of a repository, with a report on the last night."""

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
    """Builds the catalog.

    Args:
        repository: The repository to show.
        folder: The site's folder.
        base_url: URL of the repository on the web; may be empty.
        run: Summary for the report; None for that of the last night.
        manifests: The folder of manifests, for the report.
    """
    build_site(
        repository,
        folder,
        Place.parse(base_url, repository.store.url),
        run or last_night(repository),
        expected(repository, manifests),
    )
