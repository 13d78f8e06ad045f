"""Waiting for what another process does."""

from __future__ import annotations

import time
from pathlib import Path


def wait_for(path: Path) -> str:
    """Waits for a file with text in it."""
    while not (path.exists() and path.read_text()):
        time.sleep(0.02)
    return path.read_text()


def wait_for_end(pid: int) -> None:
    """Waits until a process is gone; what has ended and was not waited for is gone too."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.02)
