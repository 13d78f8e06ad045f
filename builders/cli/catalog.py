"""``zoo-farm catalog``: writes the static catalog of a repository."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from builders.cli.options import open_reader, published
from builders.cli.preview import serve
from builders.planning.options import add_options
from builders.run.catalog import make_site
from builders.weights.mode import MODE_FACTS, mode_of
from zoo.catalog.night import NightlyRun, read_nightly
from zoo.cli.command import add_arguments
from zoo.repository.repository import Repository
from zoo.stores import open_store
from zoo.util.errors import TrustError


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    site = add_arguments(commands, "catalog", catalog)
    site.add_argument(
        "--serve",
        type=_port,
        metavar="PORT",
        help="then serve it on this machine (default: only write it)",
    )
    site.add_argument(
        "--nightly", default="", help="report of a nightly run, for its page (default: none)"
    )
    add_options(site, "catalog")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"PORT={text} is not a number from 0 to 65535")
    return int(text)


def catalog(options: argparse.Namespace) -> int:
    """Writes the catalog of a repository."""
    nightly = read_nightly(Path(options.nightly)) if options.nightly else None
    site = write_catalog(options, nightly)
    if options.serve is not None:
        serve(site, options.serve)
    return 0


def write_catalog(options: argparse.Namespace, nightly: NightlyRun | None = None) -> Path:
    """Writes the catalog of the repository that ``--store`` names and returns its folder."""
    repository = published(options)
    suffix = MODE_FACTS[mode_of(repository.kind())].suffix
    site = Path(options.site or f"_site{suffix}")
    make_site(repository, site, options.base_url, nightly, manifests=Path(options.manifests))
    print(f"catalog: {site / 'index.html'}")
    return site


def update_catalog(store: str, site: Path, options: argparse.Namespace) -> None:
    """Writes the catalog after a run, if the repository is signed and this user trusts it.

    A builder need not trust the repository that it proposes engines to; whoever signs them writes
    the catalog.
    """
    if Repository(open_store(store)).index() is None:
        return
    try:
        repository = open_reader(store, options.keys).repository
    except TrustError as error:
        print(f"no catalog: {error.message}; the publisher writes it")
        return
    make_site(repository, site, options.base_url, manifests=Path(options.manifests))
    print(f"catalog: {site / 'index.html'}")
