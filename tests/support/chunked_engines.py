"""Engines that have most of their bytes in common, in a repository that stores chunks."""

from __future__ import annotations

import random
from pathlib import Path

from support.signed_repository import Signed
from zoo.client.client import Client, Pulled
from zoo.repository.chunked import unpacked
from zoo.schema.chunks import Chunking, ChunkList
from zoo.schema.layout import blob_key

SIZE = 600_000
"""Bytes of an engine."""


def engine(seed: int = 0, size: int = SIZE) -> bytes:
    """Bytes that can't be compressed, like weights."""
    return random.Random(seed).randbytes(size)


def rebuilt(content: bytes) -> bytes:
    """The same weights after another build: one part is new, and everything after it has moved."""
    middle = len(content) // 2
    return content[:middle] + b"another kernel" * 50 + content[middle:]


def in_chunks(signed: Signed, chunking: Chunking = Chunking.ON) -> Signed:
    """Sets a repository to store chunks."""
    signed.publish(chunking=chunking)
    return signed


def pull(client: Client, model: str = "m", **options: object) -> Pulled:
    """Pulls the model's current engine."""
    (entry, *_) = client.model(model).current
    return client.pull(model, entry, **options)  # type: ignore[arg-type]


def current_list(signed: Signed, model: str = "m") -> ChunkList:
    """The chunks of the model's current engine, as stored."""
    (entry, *_) = signed.client("reader").model(model).current
    assert entry.chunks is not None
    return unpacked(signed.store.get(blob_key(entry.chunks.sha256)))


def pack_paths(signed: Signed, model: str = "m") -> list[Path]:
    """The packs that the model's current engine needs."""
    return [signed.path(blob_key(pack.sha256)) for pack in current_list(signed, model).packs]
