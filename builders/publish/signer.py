"""Opens the keys of a repository and signs its candidates, if the keys are on this machine.

Keys for a new local repository are generated automatically and stored beside it: those of
``_repository`` in ``_repository.keys``. Other repositories are signed by whoever has their keys.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from builders.publish.candidates import Proposals
from zoo.client.client import trust_home
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.layout import TIMESTAMP
from zoo.stores import open_store
from zoo.util.errors import TrustError

if TYPE_CHECKING:
    from builders.publish.keys import KeyRing
    from builders.publish.publisher import Published

KEYS_HELP = "folder of the keys (default for a local store: its name with .keys)"


def open_desk(store: str, keys: str, say: Callable[[str], None]) -> Proposals:
    """Opens the :class:`Proposals` of a repository, with its keys if they are on this machine.

    Args:
        store: URL of the repository.
        keys: Folder of its keys. Empty means beside a local store, where a new repository gets
            new keys.
        say: Called with messages for the user.
    """
    repository = Repository(open_store(store))
    if keys:
        ring = key_ring(Path(keys))
        _check_outside(repository, ring.folder)
        ring.unlock("publisher")
        return _proposals(repository, lambda: sign_with(repository, ring), ring.folder, say)
    if repository.store.local_path("x") is None:
        return _proposals(repository, None, None, say)
    folder = Path(f"{repository.store.url}.keys")
    is_signed = repository.store.size(TIMESTAMP) is not None  # asked before looking for keys
    if not (folder / "keys.json").exists():
        if is_signed:
            return _proposals(repository, None, None, say)  # the keys are on another machine

        def make() -> None:
            if not (folder / "keys.json").exists():
                _make_keys_once(folder, say)

        def make_and_sign() -> Published:
            make()
            return sign_with(repository, key_ring(folder))

        return _proposals(repository, make_and_sign, folder, say, make)
    if any(b"ENCRYPTED" in path.read_bytes() for path in folder.glob("publisher*.pem")):
        key_ring(folder).unlock("publisher")
    return _proposals(repository, lambda: sign_with(repository, key_ring(folder)), folder, say)


def _proposals(
    repository: Repository,
    publish: Callable[[], Published] | None,
    folder: Path | None,
    say: Callable[[str], None],
    make: Callable[[], None] | None = None,
) -> Proposals:
    """Returns proposals that this machine's builder signs, as what it attests."""
    from builders.publish.attesting import Attestor

    attestor = Attestor(repository, folder, make=make, ask=ask_passphrase, say=say)
    repository.candidates.sign = attestor.sign_candidate
    return Proposals(repository, publish, sign=attestor.sign)


def _make_keys_once(folder: Path, say: Callable[[str], None]) -> None:
    """Makes the keys of a new repository, unless another process has made them meanwhile."""
    from builders.publish.keys import UNATTENDED, KeysExistError, make_keys

    try:
        make_keys(folder, None, ask=ask_passphrase, expiry=UNATTENDED)
    except KeysExistError:
        return
    say(f"keys of this repository: {folder} (new; for this repository only)")


def check_keys(store: str, keys: str) -> None:
    """Checks that the folder named by ``KEYS=`` can sign a repository; asks for no passphrase.

    Raises:
        TrustError: It contains no keys, or is inside the repository.
    """
    if keys:
        _check_outside(Repository(open_store(store)), key_ring(Path(keys)).folder)


def _check_outside(repository: Repository, folder: Path) -> None:
    """Checks that keys are stored outside the repository that they sign.

    Raises:
        TrustError: They are inside it.
    """
    root = repository.store.local_path("x")
    if root is not None and folder.resolve().is_relative_to(root.parent):
        raise TrustError(
            f"the keys {folder} are in the repository {repository.store.url}",
            hint="move them to a folder outside it: everyone can read the repository",
        )


def key_ring(folder: Path) -> KeyRing:
    """Opens a folder of keys."""
    from builders.publish.keys import KeyRing

    return KeyRing(folder, ask_passphrase)


def sign_with(
    repository: Repository,
    ring: KeyRing,
    *,
    refresh: bool = False,
    chunking: Chunking | None = None,
) -> Published:
    """Signs the candidates and makes this user's clients trust the repository.

    Args:
        repository: The repository.
        ring: Its keys.
        refresh: As for :meth:`~builders.publish.publisher.Publisher.run`.
        chunking: As for :meth:`~builders.publish.publisher.Publisher.run`.
    """
    from builders.publish.publisher import Publisher
    from builders.publish.tuf_metadata import SignedMetadata

    repository.store.check_writable()
    _check_outside(repository, ring.folder)
    publisher = Publisher(repository, SignedMetadata(repository.store, ring))
    done = publisher.run(refresh=refresh, chunking=chunking)
    trust_home().trust(repository.store.url, ring.root_file.read_bytes())
    return done


def ask_passphrase(what: str) -> str:
    """Asks for a passphrase at the terminal.

    Raises:
        TrustError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise TrustError(
            f"the {what} is needed, but there is no terminal to ask for it",
            hint="set ZOO_KEYS_PASSPHRASE",
        )
    os.environ["ZOO_KEYS_PASSPHRASE"] = passphrase = getpass.getpass(f"{what}: ")
    return passphrase
