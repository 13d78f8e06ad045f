"""The peers that only the benchmarks need, in an environment of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.bench.child import ROOT

PINNED = Path(__file__).with_name("peers.txt")
FOLDER = ROOT / "_work" / "peers"
_READY = ".installed"


class Peers:
    """The peers' environment.

    Args:
        folder: Where it is; created with what ``peers.txt`` pins if it is missing or older.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.missing = "" if self._is_ready() else self._install()

    def _is_ready(self) -> bool:
        done = self.folder / _READY
        return done.exists() and done.read_bytes() == PINNED.read_bytes()

    def _install(self) -> str:
        """Installs the peers; returns why that failed."""
        print(f"installing peers into {self.folder} (once)", file=sys.stderr)
        venv.create(self.folder, clear=True, with_pip=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "-r", str(PINNED)], capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        shutil.copyfile(PINNED, self.folder / _READY)
        return ""

    def command(self, name: str) -> Path | None:
        """Returns a command of the peers; None if it is not installed."""
        path = self.folder / "bin" / name
        return path if path.exists() else None

    def lacks(self, name: str) -> str:
        """Returns why a peer is not measured."""
        return f"{name}: not installed ({self.missing or 'not in the environment of the peers'})"

    @staticmethod
    def pinned(name: str) -> str:
        """Returns the name and version that ``peers.txt`` pins."""
        rows = dict(line.split("==") for line in PINNED.read_text().splitlines() if "==" in line)
        return f"{name} {rows[name]}"


def own_command(name: str) -> Path | None:
    """Returns a command of this Python's environment, or of the system."""
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    return Path(found) if found else None
