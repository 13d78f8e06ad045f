"""The command ``chunks``: whether a repository also stores engines as chunks."""

from __future__ import annotations

import argparse
from typing import Any

from builders.cli.keys import keys_folder
from builders.cli.options import STORE_HELP, store_of
from builders.publish.chunking import must_be_able
from builders.publish.signer import KEYS_HELP, key_ring, sign_with
from zoo.cli.main import add_arguments
from zoo.repository.repository import Repository
from zoo.repository.settings import set_chunks
from zoo.stores import open_store
from zoo.util.names import counted


def add_commands(commands: Any) -> None:
    """Adds this command to the parser's subcommands."""
    parser = add_arguments(commands, "chunks", chunks)
    parser.add_argument(
        "wanted",
        choices=("on", "off"),
        metavar="on|off",
        help="on: also store engines as chunks, now and at every publish; off: no longer",
    )
    parser.add_argument("--keys", default="", help=KEYS_HELP)
    parser.add_argument("--store", default="", help=STORE_HELP)


def chunks(options: argparse.Namespace) -> int:
    """Sets whether engines are also stored as chunks, so that updates transfer only new ones."""
    repository, wanted = Repository(open_store(store_of(options))), options.wanted == "on"
    if wanted:
        must_be_able(repository)
    ring = key_ring(keys_folder(options))
    ring.unlock("publisher")  # before anything is written
    set_chunks(repository, wanted)
    signed = sign_with(repository, ring, all_chunks=True)
    for model in dict.fromkeys(signed.models):
        print(f"{model}: signed")
    engines = [engine for index in repository.model_indexes() for engine in index.engines]
    listed = {engine.engine.sha256 for engine in engines if engine.chunks is not None}
    print(f"chunks are {options.wanted}: {counted(len(listed), 'engine')} stored as chunks too")
    for key, reason in signed.refused.items():
        print(f"REFUSED {key}: {reason}")
    return 1 if signed.refused else 0
