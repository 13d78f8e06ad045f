"""What the options shared by several commands of ``zoo-farm`` stand for."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builders.paths import ROOT
from builders.planning.options import words
from builders.weights.locks import read_locked
from zoo.repository.repository import Repository
from zoo.schema.manifest import Manifest, read_manifests, select_manifests
from zoo.stores import open_store
from zoo.util.errors import ManifestError

if TYPE_CHECKING:
    from zoo.client.client import Client

STORE_HELP = "repository (default ./_repository)"


def chosen_manifests(
    options: argparse.Namespace, *, locks: bool = True
) -> tuple[dict[str, Manifest], dict[str, ManifestError]]:
    """Returns the manifests that ``--models`` selects, and the errors of those that are invalid.

    Args:
        options: With ``manifests`` and ``models``.
        locks: Whether they have what ``manifests.lock`` adds; a dry run needs none of that.

    Raises:
        ManifestError: There are no manifests, or the lock can't be read.
    """
    read = read_locked if locks else read_manifests
    return pick_manifests(words(options.models), *read(Path(options.manifests)))


def pick_manifests(
    patterns: Sequence[str], good: dict[str, Manifest], bad: dict[str, ManifestError]
) -> tuple[dict[str, Manifest], dict[str, ManifestError]]:
    """Picks models, valid or not, by id, glob or family; all of them without a pattern.

    Args:
        patterns: What selects them.
        good: The valid manifests.
        bad: The errors of the others.

    Raises:
        UsageError: A pattern matches nothing.
    """
    if not patterns:
        return good, bad
    broken = {
        name: error
        for name, error in bad.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    # A pattern that matches only invalid manifests is not a misspelt one.
    remaining = [p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for name in broken)]
    return select_manifests(good, remaining) if remaining else {}, broken


def given_manifests(options: argparse.Namespace) -> str:
    """Returns the folder of manifests, empty for the default one."""
    folder: str = options.manifests
    return "" if Path(folder).resolve() == ROOT / "manifests" else folder


def store_of(options: argparse.Namespace) -> str:
    """Returns the repository that ``--store`` names, or the default one."""
    return options.store or "_repository"


def published(options: argparse.Namespace) -> Repository:
    """Returns the repository that ``--store`` names, read through its signed index.

    Raises:
        RepositoryError: Nothing is published in it.
        TrustError: This user does not trust it.
    """
    return reader(options).repository


def reader(options: argparse.Namespace) -> Client:
    """Returns a client of the repository that ``--store`` names.

    Raises:
        RepositoryError: Nothing is published in it.
        TrustError: This user does not trust it.
    """
    return open_reader(store_of(options), getattr(options, "keys", ""))


def open_reader(store: str, keys: str) -> Client:
    """Returns a client of a repository.

    A user who has the keys of a local repository need not trust it first.

    Args:
        store: URL or folder of the repository.
        keys: Folder of its keys; empty for the one beside a local repository.

    Raises:
        RepositoryError: Nothing is published in it.
        TrustError: This user does not trust it.
    """
    from zoo.client.client import connect, trust_home

    url, home = open_store(store).url, trust_home()
    root = Path(keys or f"{url}.keys") / "root.json"
    if root.is_file():
        home.trust(url, root.read_bytes())
    client = connect(store)
    client.index()
    return client
