"""Place: the repository's address, as links and commands on the pages give it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from zoo.schema.layout import blob_key
from zoo.stores import download_command
from zoo.util.errors import UsageError

UNKNOWN = "REPOSITORY"
"""Placeholder in commands for the URL of a repository whose address is unknown."""

_URL = re.compile(r"https?://[A-Za-z0-9.\-]+(:[0-9]+)?(/[A-Za-z0-9._~%+\-/]*)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the site's readers find the repository.

    Attributes:
        url: Its public URL without a trailing slash, None if it has none.
        own: Its address on the machine that builds the site, a folder or an ``s3://`` URL; commands
            fall back to it.
        root: SHA-256 of the repository's first root, None if it is not signed.
        wheel: Path of the client's wheel in the site, None if the site holds none.
    """

    url: str | None = None
    own: str = UNKNOWN
    root: str | None = None
    wheel: str | None = None

    @classmethod
    def parse(cls, text: str, own: str = UNKNOWN) -> Place:
        """Parses ``--base-url``; an empty one means that there is no public URL.

        Raises:
            UsageError: It is not an http or https URL of a folder, or has a query, a user name or
                characters that need quoting in a shell.
        """
        if not text:
            return cls(own=own)
        if _URL.fullmatch(text) is None:
            raise UsageError(
                f"'{text}' is not a valid --base-url",
                hint="give the repository's public http(s) URL, such as https://example.org/zoo",
            )
        return cls(url=text.rstrip("/"), own=own)

    @property
    def store(self) -> str:
        """The value for ``--store`` in commands."""
        return self.url or self.own

    def fetch(self, sha256: str, name: str) -> str:
        """Returns the command that downloads a blob without the client.

        Args:
            sha256: The blob's digest.
            name: File to write, quoted for a shell.
        """
        store, command = self.store, download_command(self.store)
        if store == UNKNOWN or command is None:  # no command reaches it from elsewhere
            store, command = UNKNOWN, download_command("https://")
            assert command is not None
        source = shlex.quote(f"{store}/{blob_key(sha256)}")
        return command.format(source=source, target=name)

    def link(self, sha256: str) -> str | None:
        """Returns a blob's public URL, None if there is none."""
        return f"{self.url}/{blob_key(sha256)}" if self.url else None
