"""Place: where the repository lies, as links and command lines name it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from zoo.schema.layout import blob_key
from zoo.util.errors import UsageError

UNKNOWN = "REPOSITORY"
"""Stands in command lines for the URL of a repository that the site was not told."""

_URL = re.compile(r"https?://[A-Za-z0-9.\-]+(:[0-9]+)?(/[A-Za-z0-9._~%+\-/]*)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where readers find the repository.

    Attributes:
        url: Without a slash at its end, None where the site is not told.
        own: How the machine that makes the site names it, a folder or an ``s3://`` URL; stands in
            command lines where there is no other.
    """

    url: str | None = None
    own: str = UNKNOWN

    @classmethod
    def parse(cls, text: str, own: str = UNKNOWN) -> Place:
        """Reads ``--base-url``; nothing is known where it is empty.

        Raises:
            UsageError: It is no http or https URL, or holds what a URL of a folder does not need.
        """
        if not text:
            return cls(own=own)
        if _URL.fullmatch(text) is None:
            raise UsageError(
                f"'{text}' is no address that a reader could use",
                hint="--base-url takes the repository's own: https://example.org/zoo",
            )
        return cls(url=text.rstrip("/"), own=own)

    @property
    def store(self) -> str:
        """What ``--store`` takes."""
        return self.url or self.own

    def fetch(self, sha256: str, name: str) -> str:
        """Returns the command that copies a blob without the client.

        Args:
            sha256: Of the blob.
            name: Where to, quoted for a shell.
        """
        blob = shlex.quote(f"{self.store}/{blob_key(sha256)}")
        if self.url is None and self.own.startswith("s3://"):
            return f"aws s3 cp {blob} {name}"
        if self.url is None and self.own != UNKNOWN:
            return f"cp {blob} {name}"
        return f"curl -fL -o {name} {blob}"

    def link(self, sha256: str) -> str | None:
        """Returns a blob's address, None where it is not known."""
        return f"{self.url}/{blob_key(sha256)}" if self.url else None
