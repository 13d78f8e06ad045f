"""What Xet storage answers, as far as hf_xet needs it to download a file.

A file is one xorb of uncompressed chunks. Real hashes are Merkle hashes of the chunks; here that of
a file is its SHA-256: hf_xet does not check it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Token:
    """The answer to a request for access."""

    body: dict[str, Any]
    headers: dict[str, str]


def token(cas: str) -> Token:
    """Returns access to a content-addressed store for an hour."""
    until = int(time.time()) + 3600
    return Token(
        {"casUrl": cas, "accessToken": "read", "exp": until},
        {
            "X-Xet-Cas-Url": cas,
            "X-Xet-Access-Token": "read",
            "X-Xet-Token-Expiration": str(until),
        },
    )


def _chunks(data: bytes) -> list[bytes]:
    return [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]


def xorb(data: bytes) -> bytes:
    """Returns the chunks of a file, each behind its header: version, lengths, no compression."""
    parts = []
    for chunk in _chunks(data):
        length = len(chunk).to_bytes(3, "little")
        parts.append(b"\0" + length + b"\0" + length + chunk)
    return b"".join(parts)


def reconstruction(data: bytes, url: str, byte_range: str | None) -> bytes:
    """Returns how a file is put together; empty if the range is beyond its end."""
    hash_ = url.rpartition("/")[2]
    if byte_range is not None:
        start = int(byte_range.removeprefix("bytes=").partition("-")[0])
        if start >= len(data):
            return b""
    chunks = {"start": 0, "end": len(_chunks(data))}
    size = len(xorb(data))
    return json.dumps(
        {
            "offset_into_first_range": 0,
            "terms": [{"hash": hash_, "unpacked_length": len(data), "range": chunks}],
            "fetch_info": {
                hash_: [{"range": chunks, "url": url, "url_range": {"start": 0, "end": size - 1}}]
            },
        }
    ).encode()
