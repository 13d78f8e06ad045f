"""What the command line's options mean, shared by the modules of ``zoo-farm``."""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from builders.planning.options import words
from zoo.client.client import Client, connect, trust_home
from zoo.repository.repository import Repository
from zoo.schema.manifest import Manifest, read_manifests, select_manifests
from zoo.stores import open_store
from zoo.util.errors import ManifestError

STORE_HELP = "repository (default ./_repository)"


def chosen_manifests(
    options: argparse.Namespace,
) -> tuple[dict[str, Manifest], dict[str, ManifestError]]:
    """Returns the models that are asked for, and those of them whose manifests can't be read."""
    good, bad = read_manifests(Path(options.manifests))
    patterns = words(options.models)
    if not patterns:
        return good, bad
    broken = {
        name: error
        for name, error in bad.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    rest = [p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for name in broken)]
    return select_manifests(good, rest) if rest else {}, broken


def published(options: argparse.Namespace) -> Repository:
    """Returns the repository that ``--store`` names, with its index as it is signed.

    Raises:
        RepositoryError: Nothing is published in it.
        TrustError: It is not trusted by this user.
    """
    return reader(options).repository


def reader(options: argparse.Namespace) -> Client:
    """Returns a client of the repository that ``--store`` names.

    Who has the keys of a local repository trusts it.

    Raises:
        RepositoryError: Nothing is published in it.
        TrustError: It is not trusted by this user.
    """
    store = options.store or "_repository"
    url, home = open_store(store).url, trust_home()
    keys = Path(getattr(options, "keys", "") or f"{url}.keys") / "root.json"
    if keys.is_file():
        home.trust(url, keys.read_bytes())
    client = connect(store)
    client.index()
    return client
