"""Runs the farm as a user does: `make zoo` in the checkout, with its own store and manifests."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

from zoo.repository import Repository
from zoo.stores import LocalStore


@dataclass(frozen=True, kw_only=True)
class Farm:
    """A maintainer's folder."""

    folder: Path
    manifests: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def repository(self) -> Repository:
        return Repository(LocalStore(self.store))

    def command(self, *variables: str) -> list[str]:
        return [
            "make",
            "--no-print-directory",
            "zoo",
            f"MANIFESTS={self.manifests}",
            f"STORE={self.store}",
            f"SITE={self.folder / 'site'}",
            *variables,
        ]

    def make(self, *variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*variables), capture_output=True, text=True, cwd=ROOT, timeout=3000,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    def snapshot(self) -> dict[str, bytes]:
        """Everything in the store that anybody sees, large blobs by name alone."""
        found = {}
        for key in self.repository.store.list(""):
            path = self.store / key
            found[key] = b"" if key.startswith("blobs/") else path.read_bytes()
        return found

    def edit(self, model: str, old: str, new: str) -> None:
        path = self.manifests / f"{model}.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
