"""Place: where the repository lies, as links and command lines name it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UsageError
from zoo.layout import blob_key

UNKNOWN = "REPOSITORY"
"""Stands in command lines for the URL of a repository that the site was not told."""

_URL = re.compile(r"https?://[A-Za-z0-9.\-]+(:[0-9]+)?(/[A-Za-z0-9._~%+\-/]*)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where readers find the repository.

    Attributes:
        url: Without a slash at its end, None where the site is not told.
    """

    url: str | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Reads ``--base-url``; nothing is known where it is empty.

        Raises:
            UsageError: It is no http or https URL, or holds what a URL of a folder does not need.
        """
        if not text:
            return cls()
        if _URL.fullmatch(text) is None:
            raise UsageError(
                f"'{text}' is no address that a reader could use",
                hint="--base-url takes the repository's own: https://example.org/zoo",
            )
        return cls(url=text.rstrip("/"))

    @property
    def store(self) -> str:
        """What ``--store`` takes."""
        return self.url or UNKNOWN

    def blob(self, sha256: str) -> str:
        """Returns a blob's address, as a command line has it."""
        return f"{self.store}/{blob_key(sha256)}"

    def link(self, sha256: str) -> str | None:
        """Returns a blob's address, None where it is not known."""
        return f"{self.url}/{blob_key(sha256)}" if self.url else None
