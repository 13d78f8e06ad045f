"""SHA-256 digests of bytes, files and JSON values.

Repositories are content-addressed: blobs are named by the digest of their bytes, records by the
digest of the canonical JSON of all their inputs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from zoo.util.files import open_regular

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""64 lower-case hexadecimal digits."""


def sha256_bytes(data: bytes | memoryview) -> str:
    """Returns the digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the digest of a file without loading it into memory.

    Raises:
        OSError: The file can't be read, or is no regular file.
    """
    hasher = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Returns ``value`` as canonical JSON: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: The value contains NaN or infinity, which JSON does not support.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_json(value: Any) -> str:
    """Returns the digest of the canonical JSON of ``value``."""
    return sha256_bytes(canonical_json(value))
