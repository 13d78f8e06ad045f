"""``zoo-farm keys``: makes, shows, replaces and renews what signs a repository."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.cli.options import STORE_HELP
from builders.publish.signer import KEYS_HELP, key_ring
from zoo.cli.main import add_arguments
from zoo.stores import open_store
from zoo.util.digest import sha256_file
from zoo.util.errors import TrustError, UsageError
from zoo.util.names import perhaps

if TYPE_CHECKING:
    from builders.publish.keys import KeyRing, Role
    from builders.publish.tuf_metadata import SignedMetadata


def add_commands(commands: Any) -> None:
    """Adds it and its actions to a parser's subcommands."""
    keys = add_arguments(commands, "keys", show_keys)
    actions = keys.add_subparsers(metavar="ACTION")
    made = add_arguments(actions, "init", init_keys)
    made.add_argument("--bins", type=int, default=16, help="files that the index is spread over")
    made.add_argument(
        "--signer", nargs=3, action="append", default=[], metavar=("ROLE", "URI", "PUBLIC"),
        help="a key that is elsewhere: a signer's URI and its public half, PEM",
    )  # fmt: skip
    made.add_argument("--no-passphrase", action="store_true", help="leave the files unencrypted")
    turned = add_arguments(actions, "rotate", rotate_key)
    turned.add_argument("role", help="root, targets or publisher")
    turned.add_argument("--no-passphrase", action="store_true", help="leave the file unencrypted")
    turned.add_argument(
        "--signer", nargs=2, metavar=("URI", "PUBLIC"),
        help="take a key that is elsewhere: a signer's URI and its public half, PEM",
    )  # fmt: skip
    longer = add_arguments(actions, "renew", renew_signature)
    longer.add_argument("role", help="root, targets or publisher")
    gone = add_arguments(actions, "revoke", revoke_key)
    gone.add_argument("key", help="the beginning of its id, as zoo-farm keys shows it")
    gone.add_argument("--no-passphrase", action="store_true", help="leave the file unencrypted")
    gone.set_defaults(signer=None)
    keys.add_argument("--keys", default="", help=KEYS_HELP)
    for action in (made, turned, longer, gone):
        # A default here would overwrite the value of `keys --keys FOLDER init`.
        action.add_argument("--keys", default=argparse.SUPPRESS, help=KEYS_HELP)
    for action in (turned, longer, gone):
        action.add_argument("--store", default="", help=STORE_HELP)


def show_keys(options: argparse.Namespace) -> int:
    """Shows which keys sign what; keys init makes them, keys rotate replaces one."""
    ring = key_ring(keys_folder(options))
    for entry in ring.file.keys:
        print(f"{entry.role:<10} {entry.keyid[:16]}  {entry.uri}")
    expiry = ring.file.expiry
    print(
        f"signatures last {expiry.timestamp} days, of the index {expiry.index}, roots {expiry.root}"
    )
    if ring.root_file.is_file():
        print(f"to be trusted: {ring.root_file}, sha256 {sha256_file(ring.root_file)}")
    return 0


def init_keys(options: argparse.Namespace) -> int:
    """Makes the keys of a repository, in a folder outside the store."""
    from builders.publish.keys import key_elsewhere, make_keys

    folder = keys_folder(options)
    signers = [key_elsewhere(role, uri, Path(public)) for role, uri, public in options.signer]
    passphrase = None if options.no_passphrase else _new_passphrase()
    ring = make_keys(folder, passphrase, ask=_ask, bins=options.bins, signers=signers)
    print(f"{folder}: keys for {', '.join(entry.role for entry in ring.file.keys)}")
    print("Keep root.pem and targets.pem where no machine can reach them; publishing does not need")
    print("them once the repository is signed. None of these files belongs into the store.")
    return 0


def rotate_key(options: argparse.Namespace) -> int:
    """Gives a role another key; the one before counts no more."""
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
    print(f"{role}: {old.keyid[:16]} is revoked, {entry.keyid[:16]} signs from now on")
    print(f"readers follow by themselves; {ring.root_file} is for new ones")
    return 0


def renew_signature(options: argparse.Namespace) -> int:
    """Signs what a role's key vouches for anew, before its signature expires; the key stays."""
    role, ring = _role(options.role), key_ring(keys_folder(options))
    with _signed_with(options, ring) as metadata:
        metadata.rotate(role, ring.entry(role))
        for name, until in metadata.expiries().items():
            print(f"{name}: signed until {until:%Y-%m-%d}")
    return 0


def _role(text: str) -> Role:
    from builders.publish.keys import ROLES

    role = next((one for one in ROLES if one == text), None)
    if role is None:
        raise UsageError(
            f"no role '{text}'.{perhaps(text, ROLES)}", hint=f"there are {', '.join(ROLES)}"
        )
    return role


@contextmanager
def _signed_with(options: argparse.Namespace, ring: KeyRing) -> Iterator[SignedMetadata]:
    """Yields what is signed in a repository, and nobody else signs there meanwhile."""
    from builders.publish.keys import ROLES
    from builders.publish.tuf_metadata import SignedMetadata

    store = open_store(options.store or "_repository")
    with store.lock("publish"):
        metadata = SignedMetadata(store, ring)
        if not metadata.load():
            raise TrustError(f"{store.url}: nothing is signed here", hint="zoo-farm publish signs")
        for one in ROLES:
            ring.unlock(one)  # before anything is made
        yield metadata


def revoke_key(options: argparse.Namespace) -> int:
    """Revokes a key: its role gets another, and what it signs counts no more."""
    known = key_ring(keys_folder(options)).file.keys
    found = [entry for entry in known if entry.keyid.startswith(options.key)]
    if len(found) != 1:
        raise UsageError(
            f"{len(found)} keys that count begin with '{options.key}'",
            hint=f"there are {', '.join(f'{one.keyid[:16]} ({one.role})' for one in known)}",
        )
    options.role = found[0].role
    return rotate_key(options)


def keys_folder(options: argparse.Namespace) -> Path:
    """Returns the folder of the keys that ``--keys`` or a local store names.

    Raises:
        UsageError: The store is elsewhere, and nothing names its keys.
    """
    store = getattr(options, "store", "") or "_repository"
    if options.keys:
        return Path(options.keys)
    if "://" in store:
        raise UsageError(f"which keys sign {store}?", hint="--keys names their folder")
    return Path(f"{store.rstrip('/')}.keys")


def _new_passphrase() -> str | None:
    from builders.publish.keys import PASSPHRASE

    if known := os.environ.get(PASSPHRASE):
        return known
    if not sys.stdin.isatty():
        raise UsageError(
            "no passphrase for the new key",
            hint=f"give one in {PASSPHRASE}, or ask for none with --no-passphrase",
        )
    first = getpass.getpass("passphrase of the new keys: ")
    if first != getpass.getpass("again: ") or not first:
        raise UsageError("the two passphrases differ, or are empty")
    return first


def _ask(what: str) -> str:
    from builders.publish.signer import ask_passphrase

    return ask_passphrase(what)
