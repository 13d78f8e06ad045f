"""Builds the catalog of a repository, with a report on the last night."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders.history.nights import last_night
from builders.paths import ROOT
from builders.run.expected import expected
from builders.weights.mode import MODE_FACTS, mode_of
from zoo.catalog.night import NightlyRun
from zoo.catalog.place import Place
from zoo.catalog.portability import read_prices
from zoo.catalog.site import build_site
from zoo.repository.repository import Repository
from zoo.stores import folder_of
from zoo.util.version import __version__


def make_site(
    repository: Repository,
    folder: Path,
    base_url: str,
    run: NightlyRun | None = None,
    *,
    manifests: Path,
    wheel: Path | None = None,
) -> None:
    """Builds the catalog.

    Args:
        repository: The repository to show.
        folder: The site's folder.
        base_url: URL of the repository on the web; may be empty.
        run: Summary for the report; None for that of the last night.
        manifests: The folder of manifests, for the report.
        wheel: The client's wheel, for readers to install; None for the one of ``make wheel``.
    """
    build_site(
        repository,
        folder,
        replace(
            Place.parse(base_url, repository.store.url),
            checkout=checkout_variables(repository, folder, base_url, manifests),
        ),
        run or last_night(repository),
        expected(repository, manifests),
        wheel or built_wheel(ROOT / "dist"),
        read_prices(sorted((ROOT / "docs/results").glob("*/portability/*.json"))),
    )


def checkout_variables(
    repository: Repository, folder: Path, base_url: str, manifests: Path
) -> dict[str, str]:
    """Returns the variables by which this checkout acts on a repository and its site."""
    mode = mode_of(repository.kind())
    suffix = MODE_FACTS[mode].suffix
    given = {"STORE": _in_checkout(repository.store.url)}
    if suffix:
        given["WEIGHTS"] = mode
    if folder.resolve() != ROOT / f"_site{suffix}":
        given["SITE"] = _in_checkout(str(folder))
    if base_url:
        given["BASE_URL"] = base_url
    if manifests.resolve() != ROOT / "manifests":
        given["MANIFESTS"] = _in_checkout(str(manifests))
    return given


def _in_checkout(name: str) -> str:
    """Returns a folder's path from the checkout, where the commands run; other places as given."""
    folder = folder_of(name)
    if folder is None:
        return name
    path = folder.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def built_wheel(folder: Path) -> Path | None:
    """Returns the wheel of this version in the folder of ``make wheel``; None without one."""
    wheel = folder / f"caft_zoo-{__version__}-py3-none-any.whl"
    return wheel if wheel.is_file() else None
