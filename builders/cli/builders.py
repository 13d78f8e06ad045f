"""``zoo-farm builders``: whose attestations a repository's publisher believes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.cli.keys import keys_folder, signed_with
from builders.cli.options import STORE_HELP, store_of
from builders.publish.signer import KEYS_HELP, ask_passphrase, key_ring
from zoo.cli.command import add_arguments
from zoo.schema.layout import TIMESTAMP
from zoo.stores import open_store
from zoo.util.errors import UsageError
from zoo.util.names import perhaps

if TYPE_CHECKING:
    from builders.publish.builder_list import Builder, Builders
    from builders.publish.keys import KeyRing


def add_commands(commands: Any) -> None:
    """Adds the command and its actions to the parser's subcommands."""
    builders = add_arguments(commands, "builders", list_builders)
    actions = builders.add_subparsers(metavar="ACTION")
    add = add_arguments(actions, "add", add_builder)
    add.add_argument("name", help="what to call the builder")
    add.add_argument(
        "public", nargs="?", default="",
        help="PEM file that zoo-farm builders key wrote on the builder's machine (default: the "
        "builder of this machine, whose key is with the repository's)",
    )  # fmt: skip
    remove = add_arguments(actions, "remove", remove_builder)
    remove.add_argument("name", help="the builder's name")
    key = add_arguments(actions, "key", show_key)
    key.add_argument(
        "--output", default="builder-public.pem", help="file (default: builder-public.pem)"
    )
    listing = add_arguments(actions, "list", list_builders)
    builders.add_argument("--store", default="", help=STORE_HELP)
    listing.add_argument("--store", default=argparse.SUPPRESS, help=STORE_HELP)
    for action in (add, remove):
        # A default here would overwrite the value of `builders --store URL add`.
        action.add_argument("--store", default=argparse.SUPPRESS, help=STORE_HELP)
        action.add_argument("--keys", default="", help=KEYS_HELP)


def list_builders(options: argparse.Namespace) -> int:
    """Lists the builders whose attestations are believed."""
    from builders.publish.registered import stated_builders

    store = open_store(store_of(options))
    if store.size(TIMESTAMP) is None:
        raise UsageError(
            f"{store.url}: the repository is not signed yet, so nobody is registered there",
            hint="zoo-farm publish signs it",
        )
    builders = stated_builders(store)
    for builder in builders or ():
        print(f"{builder.name:<20} {builder.keyid[:16]}")
    if not builders:
        print(
            "none: no attestation counts"
            if builders is not None
            else "none, as before there were builders: every attestation counts"
        )
    return 0


def add_builder(options: argparse.Namespace) -> int:
    """Registers a builder: what it attests from now on, or signed before, is believed."""
    from builders.publish.keys import PASSPHRASE, builder_elsewhere, new_builder

    ring = key_ring(keys_folder(options))

    def added(builders: Builders) -> Builders:
        if options.public:
            new = builder_elsewhere(options.name, Path(options.public))
        else:
            secret = os.environ.get(PASSPHRASE)
            new = new_builder(ring.builder_file, options.name, secret, ask_passphrase)
        for known in builders:
            if known.name == new.name or known.keyid == new.keyid:
                raise UsageError(
                    f"{new.name}: the builder {known.name} has this name or key",
                    hint="choose another name, or remove that one first",
                )
        print(f"{new.name}: added, key {new.keyid[:16]}")
        return (*builders, new)

    _change(options, ring, added)
    return 0


def remove_builder(options: argparse.Namespace) -> int:
    """Stops believing a builder. What is signed in the index already stays there."""
    ring = key_ring(keys_folder(options))

    def removed(builders: Builders) -> Builders:
        names = [one.name for one in builders]
        if options.name not in names:
            raise UsageError(
                f"there is no builder '{options.name}'.{perhaps(options.name, names)}",
                hint=f"builders: {', '.join(names) or 'none'}",
            )
        gone = next(one for one in builders if one.name == options.name)
        print(f"{gone.name}: removed, key {gone.keyid[:16]}")
        print("engines that the signed index lists stay: zoo-farm withdraw withdraws one")
        return tuple(one for one in builders if one is not gone)

    _change(options, ring, removed)
    return 0


def show_key(options: argparse.Namespace) -> int:
    """Writes this machine's public builder key to a file; creates the key if there is none."""
    from builders.publish.attesting import own_key
    from builders.publish.keys import new_builder, write_public

    path = own_key()
    builder: Builder = new_builder(path, "this machine", None, ask_passphrase)
    write_public(path, Path(options.output), ask_passphrase)
    print(f"{options.output}: the public key {builder.keyid[:16]} of {path}")
    print(f"where the repository's keys are: zoo-farm builders add NAME {options.output}")
    return 0


def _change(
    options: argparse.Namespace, ring: KeyRing, change: Callable[[Builders], Builders]
) -> None:
    """Signs another list of builders, or prepares it for a repository that is not signed yet."""
    from builders.publish.builder_list import BUILDERS
    from builders.publish.registered import read_builders, read_file, write_builders
    from zoo.util.files import write_private

    store = open_store(store_of(options))
    if store.size(TIMESTAMP) is None:
        with ring.turn():
            file = ring.builders_file
            listed = change(read_file(file) if file.exists() else ())
            write_private(file, BUILDERS.dump_json(listed, indent=1))
        print(f"{store.url} is not signed yet: its first signature will register them")
        return
    with signed_with(store, ring, "targets", "publisher") as metadata:
        targets = metadata.targets.signed
        write_builders(targets, change(read_builders(targets) or ()))
        metadata.sign_targets()
