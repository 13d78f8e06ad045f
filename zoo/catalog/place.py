"""Place: the repository's address, as links and commands on the pages give it.

A site without a public URL for its repository has a link to the repository's folder beside its
pages. Whoever serves the site then serves the repository too, and the pages, which a browser tells
where they are served, write its address into their commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo.schema.layout import blob_key
from zoo.stores import credentials_of, download_command, folder_of
from zoo.util.errors import UsageError

UNKNOWN = "REPOSITORY"
"""Placeholder in commands for the URL of a repository whose address is unknown."""

SITE = "SITE"
"""What stands for the site's address in a page that no script has completed."""

BESIDE = "repository"
"""Name of the link to the repository in the site's folder."""

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
        beside: Whether the site has a link to the repository.
        checkout: Variables of ``make`` by which a maintainer's checkout acts on this repository and
            this site: ``STORE`` and those that do not have their defaults.
    """

    url: str | None = None
    own: str = UNKNOWN
    root: str | None = None
    wheel: str | None = None
    beside: bool = False
    checkout: Mapping[str, str] = field(default_factory=dict)

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

    @property
    def is_known(self) -> bool:
        """Whether commands can name the repository."""
        return self.store != UNKNOWN

    @property
    def is_folder(self) -> bool:
        """Whether commands name a folder of the machine that builds the site."""
        return self.is_known and folder_of(self.store) is not None

    @property
    def needs_credentials(self) -> bool:
        """Whether readers need credentials, unless the store lets anybody read."""
        return credentials_of(self.store) is not None

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

    def fetch_beside(self, sha256: str, name: str) -> str:
        """Returns the command that downloads a blob from where the site is served."""
        command = download_command("https://")
        assert command is not None
        return command.format(source=f"{SITE}/{BESIDE}/{blob_key(sha256)}", target=name)

    def link(self, sha256: str, root: str) -> str | None:
        """Returns a blob's URL, None if there is none.

        Args:
            sha256: The blob's digest.
            root: Path from the page with the link to the site, such as ``../``.
        """
        if self.url:
            return f"{self.url}/{blob_key(sha256)}"
        return f"{root}{BESIDE}/{blob_key(sha256)}" if self.beside else None

    def make(self, target: str, *words: str) -> str:
        """Returns a command of ``make`` that acts on this repository, for its maintainers."""
        given = {"STORE": self.own, **self.checkout}
        variables = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
        return " ".join(["make", target, *words, *variables])

    def farm(self, words: Sequence[str]) -> str:
        """Returns a command of ``zoo-farm`` that acts on this repository, for its maintainers.

        Args:
            words: The command and its arguments, with the repository or without.
        """
        given = {"STORE": self.own, **self.checkout}
        before = ["--manifests", given["MANIFESTS"]] if "MANIFESTS" in given else []
        after = ["--store", given["STORE"]]
        return shlex.join(
            [
                ".venv/bin/zoo-farm",
                *([] if "--manifests" in words else before),
                *words,
                *([] if "--store" in words else after),
            ]
        )
