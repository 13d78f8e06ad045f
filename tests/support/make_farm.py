"""Runs the farm as a user does: `make zoo` in the checkout, with its own store and manifests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT
from zoo.client.roots import TrustHome
from zoo.repository.repository import Repository
from zoo.stores import LocalStore


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many engines a run brought to which end."""

    published: int = 0
    verified: int = 0
    current: int = 0
    ruled_out: int = 0
    disabled: int = 0
    failed: int = 0


_WORDS = {
    "published": "published",
    "verified again": "verified",
    "already published, nothing to do": "current",
    "ruled out by their tolerance": "ruled_out",
    "disabled, whose engines missed or failed (RETRY=1 tries them again)": "disabled",
    "failed": "failed",
}
"""The words of the line that ends a run, which no test repeats."""

_COUNT = re.compile(rf"\b(\d+) ({'|'.join(re.escape(words) for words in _WORDS)})(?:, |$)")


def counts(done: subprocess.CompletedProcess[str]) -> Counts:
    """Returns what a run's last line of counts says; fails where there is none."""
    lines = [_COUNT.findall(line) for line in done.stdout.splitlines()]
    counted = [line for line in lines if line]
    assert counted, f"no counts in {done.stdout}{done.stderr}"
    return Counts(**{_WORDS[words]: int(number) for number, words in counted[-1]})


@dataclass(frozen=True, kw_only=True)
class Farm:
    """A maintainer's folder."""

    folder: Path
    manifests: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def home(self) -> dict[str, str]:
        """Where its maintainer's trust lies, as an environment."""
        return {"ZOO_HOME": str(self.folder / "home")}

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

    def trusted_in(self, home: Path) -> dict[str, str]:
        """Another user's home, who was given this repository's root; as an environment."""
        root = Path(f"{self.store}.keys/root.json").read_bytes()
        trust = TrustHome(roots=home / "trust", verified=home / "repositories")
        trust.trust(self.repository.store.url, root)
        return {"ZOO_HOME": str(home)}

    def make(self, *variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*variables), capture_output=True, text=True, cwd=ROOT, timeout=3000,
            env={**os.environ, "COLUMNS": "200", **self.home},
        )  # fmt: skip

    def zoo(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the client on this store, with a cache of its own."""
        return subprocess.run(
            [sys.executable, "-m", "zoo.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=300,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "ZOO_STORE": str(self.store),
                **self.home,
                **environment,
            },
        )

    def copy(self, folder: Path) -> Farm:
        """Copies store and manifests into a folder, for a test to change."""
        shutil.copytree(self.store, folder / "store")
        shutil.copytree(f"{self.store}.keys", folder / "store.keys")
        shutil.copytree(self.manifests, folder / "manifests")
        copied = Farm(folder=folder, manifests=folder / "manifests")
        copied.trusted_in(folder / "home")
        return copied

    def snapshot(self) -> dict[str, bytes]:
        """Everything in the store that anybody sees, large blobs by name alone."""
        found = {}
        for entry in self.repository.store.list(""):
            key, path = entry.key, self.store / entry.key
            found[key] = b"" if key.startswith("blobs/") else path.read_bytes()
        return found

    def edit(self, model: str, old: str, new: str) -> None:
        path = self.manifests / f"{model}.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
