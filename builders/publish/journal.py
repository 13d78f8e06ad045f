"""The journal of a key rotation: the files that an interrupted one has not written yet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, Root, Timestamp
from tuf.api.serialization import DeserializationError

from builders.publish.keys import KeyFile
from zoo.util.digest import sha256_json
from zoo.util.errors import TrustError
from zoo.util.loading import parse_json, read_regular

LARGEST_METADATA = 2**24
"""Bytes of a file of metadata that is read."""

TIMESTAMP = "timestamp.json"

_LARGEST = 2**28
_NAME = re.compile(r"[\w-][\w.-]*\.json", re.ASCII)


class Journal(BaseModel):
    """What remains to be written.

    Attributes:
        store: URL of the repository; version 0.1 did not write it.
        keys: Content of ``keys.json``.
        root: The new root.
        files: Content of each file of metadata.
        sha256: Digest of the others; those of earlier versions have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str | None = None
    keys: str
    root: str
    files: dict[str, str]
    sha256: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the file's content, with the digest."""
        whole = self.model_copy(update={"sha256": self._digest()})
        return whole.model_dump_json(exclude_none=True).encode()

    @property
    def version(self) -> int:
        """The version of its timestamp."""
        return int(parsed(self.files[TIMESTAMP].encode(), Timestamp).version)

    def check(self) -> None:
        """Checks that it is whole, so that completing it writes nothing that was damaged.

        Raises:
            ValueError: It is not.
        """
        if self.sha256 not in (None, self._digest()):
            raise ValueError("it does not match its digest")
        if wrong := [name for name in self.files if not _NAME.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r} is not the name of a file of metadata")
        KeyFile.model_validate_json(self.keys)
        parsed(self.root.encode(), Root)
        if TIMESTAMP not in self.files:
            raise ValueError(f"{TIMESTAMP} is missing")
        for text in self.files.values():
            parsed(text.encode())

    def _digest(self) -> str:
        return sha256_json(self.model_dump(exclude={"sha256"}, exclude_none=True))


def read_journal(path: Path) -> Journal:
    """Reads and checks a journal.

    Raises:
        TrustError: It is damaged.
    """
    try:
        journal = Journal.model_validate(parse_json(read_regular(path, _LARGEST), most=_LARGEST))
        journal.check()
    except (OSError, ValueError) as error:
        raise TrustError(
            f"{path}: a key rotation was interrupted, and its journal is damaged: {reason(error)}",
            hint="nothing was written; restore the file from a copy of the folder of keys, or "
            "delete it and rotate the key again if that still finds the repository signed",
        ) from error
    return journal


def parsed(data: bytes, kind: type[Any] | None = None) -> Any:
    """Returns the signed part of a file of metadata.

    Raises:
        ValueError: It is no metadata, or of another kind.
    """
    try:
        signed = Metadata.from_bytes(data).signed
    except (DeserializationError, TufError, RecursionError) as error:
        raise ValueError(f"it holds no valid metadata: {error}") from error
    if kind is not None and not isinstance(signed, kind):
        raise ValueError(f"it is metadata of the role {signed.type}")
    return signed


def reason(error: Exception) -> str:
    """Returns what is wrong, in a line."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False)[0]["msg"])
    return str(error).strip().split("\n")[0] or type(error).__name__
