"""The command ``chunks``: whether a repository stores engines as chunks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from typing_extensions import assert_never

from builders.cli.keys import keys_folder
from builders.cli.options import STORE_HELP, store_of
from builders.publish.chunking import must_be_able, not_in_chunks
from builders.publish.signer import KEYS_HELP, key_ring, sign_with
from zoo.cli.command import add_arguments
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.stores import open_store
from zoo.util.names import counted


def add_commands(commands: Any) -> None:
    """Adds this command to the parser's subcommands."""
    parser = add_arguments(commands, "chunks", chunks)
    parser.add_argument(
        "wanted",
        choices=tuple(map(str, Chunking)),
        metavar="|".join(Chunking),
        help="on: also store engines as chunks, now and at every publish; only: store engines and "
        "ONNX exports as chunks, not whole; off: whole, without chunks",
    )
    parser.add_argument("--keys", default="", help=KEYS_HELP)
    parser.add_argument("--store", default="", help=STORE_HELP)


def chunks(options: argparse.Namespace) -> int:
    """Sets whether engines are stored as chunks, so that the same weights are stored once."""
    repository, wanted = Repository(open_store(store_of(options))), Chunking(options.wanted)
    if wanted is not Chunking.OFF:
        must_be_able(repository)
    ring = key_ring(keys_folder(options))
    ring.unlock("publisher")  # before anything is written
    signed = sign_with(repository, ring, chunking=wanted)
    for model in dict.fromkeys(signed.models):
        print(f"{model}: signed")
    entries = [entry for index in repository.model_indexes() for entry in index.engines]
    listed = {entry.engine.sha256 for entry in entries if entry.chunks is not None}
    stored = f"{counted(len(listed), 'engine')} stored as chunks{_besides(wanted)}"
    print(f"chunks are {wanted}: {stored}")
    for key, reason in signed.refused.items():
        print(f"REFUSED {key}: {reason}")
    lost = list(not_in_chunks(repository)) if wanted is not Chunking.OFF else []
    for model, engine in lost:
        print(
            f"{model}: engine {engine.sha256} is not stored as chunks, because it is missing or "
            "damaged; zoo-farm check says what is wrong",
            file=sys.stderr,
        )
    return 1 if signed.refused or lost else 0


def _besides(chunking: Chunking) -> str:
    match chunking:
        case Chunking.OFF | Chunking.ON:
            return " too"
        case Chunking.ONLY:
            return " only; zoo-farm gc --delete removes the whole files"
        case _:
            assert_never(chunking)
