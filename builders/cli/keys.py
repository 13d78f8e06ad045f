"""``zoo-farm keys``: creates, lists, rotates and revokes a repository's keys; renews signatures."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.cli.options import STORE_HELP, store_of
from builders.publish.signer import KEYS_HELP, key_ring
from zoo.cli.command import add_arguments
from zoo.stores import ObjectStore, folder_of, open_store
from zoo.util.digest import sha256_file
from zoo.util.errors import TrustError, UsageError
from zoo.util.names import perhaps

if TYPE_CHECKING:
    from builders.publish.keys import KeyRing, Role
    from builders.publish.tuf_metadata import SignedMetadata


def add_commands(commands: Any) -> None:
    """Adds the command and its actions to the parser's subcommands."""
    keys = add_arguments(commands, "keys", show_keys)
    actions = keys.add_subparsers(metavar="ACTION")
    init = add_arguments(actions, "init", init_keys)
    init.add_argument(
        "--bins", type=int, default=16, help="number of files to split the index into (default: 16)"
    )
    init.add_argument(
        "--signer", nargs=3, action="append", default=[], metavar=("ROLE", "URI", "PUBLIC"),
        help="use a key stored elsewhere: the signer's URI and a PEM file of the public key "
        "(default: a new key in the folder)",
    )  # fmt: skip
    init.add_argument("--no-passphrase", action="store_true", help="do not encrypt the key files")
    rotate = add_arguments(actions, "rotate", rotate_key)
    rotate.add_argument("role", help="root, targets or publisher")
    rotate.add_argument("--no-passphrase", action="store_true", help="do not encrypt the key file")
    rotate.add_argument(
        "--signer", nargs=2, metavar=("URI", "PUBLIC"),
        help="use a key stored elsewhere: the signer's URI and a PEM file of the public key "
        "(default: a new key in the folder)",
    )  # fmt: skip
    renew = add_arguments(actions, "renew", renew_signature)
    renew.add_argument("role", help="root, targets or publisher")
    revoke = add_arguments(actions, "revoke", revoke_key)
    revoke.add_argument("key", help="first digits of the key's id, which zoo-farm keys lists")
    revoke.add_argument("--no-passphrase", action="store_true", help="do not encrypt the key file")
    revoke.set_defaults(signer=None)
    keys.add_argument("--keys", default="", help=KEYS_HELP)
    for action in (init, rotate, renew, revoke):
        # A default here would overwrite the value of `keys --keys FOLDER init`.
        action.add_argument("--keys", default=argparse.SUPPRESS, help=KEYS_HELP)
    for action in (rotate, renew, revoke):
        action.add_argument("--store", default="", help=STORE_HELP)


def show_keys(options: argparse.Namespace) -> int:
    """Lists each role's key. keys init creates the keys; keys rotate replaces one."""
    ring = key_ring(keys_folder(options))
    for entry in ring.file.keys:
        print(f"{entry.role:<10} {entry.keyid[:16]}  {entry.uri}")
    expiry = ring.file.expiry
    print(
        f"signatures are valid for {expiry.timestamp} days (timestamp), {expiry.index} days "
        f"(index) and {expiry.root} days (root)"
    )
    if ring.root_file.is_file():
        print(f"clients trust the root {ring.root_file}, SHA-256 {sha256_file(ring.root_file)}")
    return 0


def init_keys(options: argparse.Namespace) -> int:
    """Creates a repository's keys in a folder outside the store."""
    from builders.publish.keys import key_elsewhere, make_keys

    folder = keys_folder(options)
    signers = [key_elsewhere(role, uri, Path(public)) for role, uri, public in options.signer]
    passphrase = None if options.no_passphrase else _new_passphrase()
    ring = make_keys(folder, passphrase, ask=_ask, bins=options.bins, signers=signers)
    print(f"{folder}: created the keys of {', '.join(entry.role for entry in ring.file.keys)}")
    print("Keep root.pem and targets.pem offline: publishing to a signed repository does not need")
    print("them. Never copy any of these files into the store.")
    return 0


def rotate_key(options: argparse.Namespace) -> int:
    """Replaces a role's key and revokes the old one."""
    from builders.publish.keys import key_elsewhere, new_key

    role, ring = _role(options.role), key_ring(keys_folder(options))
    with _signed_with(options, ring) as metadata:
        old = ring.entry(role)
        if options.signer:
            entry = key_elsewhere(role, options.signer[0], Path(options.signer[1]))
        else:
            passphrase = None if options.no_passphrase else _new_passphrase()
            entry = new_key(ring.folder, role, passphrase)
        metadata.rotate(role, entry)
    print(f"{role}: revoked key {old.keyid[:16]}; new signatures use key {entry.keyid[:16]}")
    print(f"existing clients switch automatically; new clients need {ring.root_file}")
    return 0


def renew_signature(options: argparse.Namespace) -> int:
    """Signs a role's metadata again with the same key before the signature expires."""
    role, ring = _role(options.role), key_ring(keys_folder(options))
    with _signed_with(options, ring) as metadata:
        metadata.rotate(role, ring.entry(role))
        for name, until in metadata.expiries().items():
            print(f"{name}: signature valid until {until:%Y-%m-%d}")
    return 0


def _role(text: str) -> Role:
    from builders.publish.keys import ROLES

    for role in ROLES:
        if role == text:
            return role
    raise UsageError(
        f"unknown role '{text}'.{perhaps(text, ROLES)}", hint=f"roles: {', '.join(ROLES)}"
    )


@contextmanager
def signed_with(store: ObjectStore, ring: KeyRing, *roles: Role) -> Iterator[SignedMetadata]:
    """Yields a repository's signed metadata and holds its publishing lock.

    Args:
        store: The repository's store.
        ring: Its keys.
        roles: Those that will sign: a wrong passphrase must fail before anything is written.

    Raises:
        TrustError: It is not signed yet, or a key can't be used.
    """
    from builders.publish.tuf_metadata import SignedMetadata

    with store.lock("publish"):
        metadata = SignedMetadata(store, ring)
        if not metadata.load():
            raise TrustError(
                f"{store.url}: the repository is not signed yet",
                hint="sign it with zoo-farm publish",
            )
        for role in roles:
            ring.unlock(role)
        yield metadata


def _signed_with(
    options: argparse.Namespace, ring: KeyRing
) -> AbstractContextManager[SignedMetadata]:
    from builders.publish.keys import ROLES

    return signed_with(open_store(store_of(options)), ring, *ROLES)


def revoke_key(options: argparse.Namespace) -> int:
    """Revokes a key, which invalidates its signatures, and creates a new one for its role."""
    valid = key_ring(keys_folder(options)).file.keys
    matching = [entry for entry in valid if entry.keyid.startswith(options.key)]
    if len(matching) != 1:
        ids = ", ".join(f"{entry.keyid[:16]} ({entry.role})" for entry in valid)
        raise UsageError(
            f"{len(matching)} valid keys have an id that begins with '{options.key}'",
            hint=f"valid keys: {ids}",
        )
    options.role = matching[0].role
    return rotate_key(options)


def keys_folder(options: argparse.Namespace) -> Path:
    """Returns the folder of ``--keys``; by default, the one beside a local store.

    Raises:
        UsageError: The store is remote and ``--keys`` is missing.
    """
    store = getattr(options, "store", "") or "_repository"
    if options.keys:
        return Path(options.keys)
    if (folder := folder_of(store)) is None:
        raise UsageError(
            f"{store}: there is no default key folder for a remote store",
            hint="name the folder with --keys",
        )
    return Path(f"{folder}.keys")


def _new_passphrase() -> str | None:
    from builders.publish.keys import PASSPHRASE

    if passphrase := os.environ.get(PASSPHRASE):
        return passphrase
    if not sys.stdin.isatty():
        raise UsageError(
            "a new key needs a passphrase, but there is no terminal to ask for it",
            hint=f"set {PASSPHRASE}, or pass --no-passphrase to leave the key unencrypted",
        )
    passphrase = getpass.getpass("new passphrase: ")
    if passphrase != getpass.getpass("repeat it: ") or not passphrase:
        raise UsageError(
            "the passphrases differ or are empty", hint="nothing was written; run it again"
        )
    return passphrase


def _ask(what: str) -> str:
    from builders.publish.signer import ask_passphrase

    return ask_passphrase(what)
