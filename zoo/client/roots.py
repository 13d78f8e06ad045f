"""The roots that a user trusts: one per repository, given once or accepted on first use."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from zoo.client.first_use import Ask
from zoo.schema.layout import FIRST_ROOT
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import TrustError
from zoo.util.files import write_whole
from zoo.util.kinds import kind_of_file
from zoo.util.loading import parse_json, read_regular
from zoo.util.locks import is_not_mine, turn

_ROOT_LIMIT = 512_000
_HOW_TO_TRUST = (
    "get root.json or its SHA-256 from the maintainers, then run once: "
    "zoo list --store STORE --trust ROOT"
)


@dataclass(frozen=True, kw_only=True)
class TrustHome:
    """A user's trusted roots and verified files.

    Attributes:
        roots: Folder of trusted roots, one file per repository.
        verified: Folder of verified files, one folder per repository.
    """

    roots: Path
    verified: Path

    def root(self, url: str) -> bytes | None:
        """Returns the trusted root of a repository, or None if it is not trusted."""
        path = self._root_path(url)
        return path.read_bytes() if path.is_file() else None

    def trust(self, url: str, root: bytes) -> bool:
        """Trusts a root for a repository and deletes files verified with a different root.

        Returns:
            Whether the root changed.
        """
        if self.root(url) == root:
            return False
        path, folder = self._root_path(url), self.folder(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(folder / "lock"):
            if self.root(url) == root:  # another process trusted it meanwhile
                return False
            for inside in ("metadata", "verified"):
                shutil.rmtree(folder / inside, ignore_errors=True)
            write_whole(path, root)
        return True

    def hand_on(self, url: str, mirror: str) -> str:
        """Trusts a verified mirror as its origin is trusted.

        Args:
            url: A trusted repository.
            mirror: A copy of it, with the same signatures.

        Returns:
            What ``--trust`` takes on other machines: the SHA-256 of the first root, or the path
            of a file if the trusted root is a later one.

        Raises:
            TrustError: The origin is no longer trusted.
        """
        root = self.root(url)
        if root is None:
            raise TrustError(f"{url}: this repository is not trusted", hint=_HOW_TO_TRUST)
        self.trust(mirror, root)
        is_first = parse_json(root)["signed"]["version"] == 1
        return sha256_bytes(root) if is_first else shlex.quote(str(self._root_path(mirror)))

    def folder(self, url: str) -> Path:
        """Returns the folder of a repository's verified files."""
        return self.verified / _name(url)

    def _root_path(self, url: str) -> Path:
        return self.roots / f"{_name(url)}.root.json"


def _name(url: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-40:]
    return f"{readable}-{sha256_bytes(url.encode())[:12]}"


def read_root(store: ObjectStore, given: str) -> bytes:
    """Reads the root that a user asked to trust.

    Args:
        store: The repository's store.
        given: Path of a ``root.json``, or the SHA-256 of the repository's first root.

    Raises:
        TrustError: The file does not exist or is not a root, or the repository's root has another
            digest.
    """
    digest = given.removeprefix("sha256:").lower()
    if re.fullmatch("[0-9a-f]{64}", digest):
        try:
            data = store.get(FIRST_ROOT, limit=_ROOT_LIMIT)
        except KeyError as error:
            raise TrustError(
                f"{store.url}: no signed repository here: {FIRST_ROOT} is missing",
                hint="check the address; if it is right, nothing is published there yet, or "
                "whoever copied the repository left files out",
            ) from error
        if (actual := sha256_bytes(data)) != digest:
            raise TrustError(
                f"{store.url}: the SHA-256 of its root is {actual}, not the given {digest}",
                hint="the repository was not trusted; ask its maintainers for the right SHA-256",
            )
        return data
    path = Path(given)
    try:
        data = read_regular(path, _ROOT_LIMIT)
        if parse_json(data)["signed"]["_type"] != "root":
            raise ValueError
    except IsADirectoryError as error:
        raise TrustError(
            f"{path} is a folder, not a repository's root.json", hint=_HOW_TO_TRUST
        ) from error
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}", hint=_HOW_TO_TRUST) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrustError(
            f"{path} is {kind_of_file(path)}, not a repository's root.json", hint=_HOW_TO_TRUST
        ) from error
    return data


def trusted_root(
    store: ObjectStore, home: TrustHome, given: str | None, ask: Ask | None = None
) -> bytes:
    """Returns a repository's trusted root, storing it first if the user gave or accepted one.

    Args:
        store: The repository's store.
        home: The user's trusted roots.
        given: Path of a ``root.json``, or the SHA-256 of the repository's first root.
        ask: Asks whether to trust a repository that is used for the first time; None if nobody
            can answer.

    Raises:
        TrustError: No root was given or accepted, and the repository is not trusted yet.
    """
    if given:
        return _remember(store, home, read_root(store, given))
    known = home.root(store.url)
    if known is not None:
        return known
    first = _first_root(store)
    fingerprint = sha256_bytes(first) if first else None
    if first and fingerprint and ask is not None and ask(store.url, fingerprint):
        return _remember(store, home, first)
    raise TrustError(
        f"{store.url}: this repository is not trusted yet", hint=_how_to_trust(store, fingerprint)
    )


def _remember(store: ObjectStore, home: TrustHome, root: bytes) -> bytes:
    try:
        home.trust(store.url, root)
    except OSError as error:
        if not is_not_mine(error):
            raise  # otherwise it is trusted this time, and not remembered
    return root


def _first_root(store: ObjectStore) -> bytes | None:
    """Returns the first root that a repository itself offers, None if it has none."""
    try:
        return store.get(FIRST_ROOT, limit=_ROOT_LIMIT)
    except KeyError:
        return None


def _how_to_trust(store: ObjectStore, fingerprint: str | None) -> str:
    trust = f"zoo list --store {shlex.quote(store.url)} --trust"
    own = Path(f"{store.url}.keys") / "root.json"
    if own.is_file():
        return f"if it is your own: {trust} {shlex.quote(str(own))}"
    if fingerprint is None:
        return _HOW_TO_TRUST.replace("STORE", shlex.quote(store.url))
    return (
        f"its root has the SHA-256 {fingerprint}; if its catalog's pages or its maintainers name "
        f"the same, run once: {trust} {fingerprint}"
    )
