"""Manifests whose weights on the hub are not locked, as a new model's are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from support.paths import MANIFESTS

_ADDED = re.compile(r"^(digest_from = .*|recorded_revisions = \[[^\]]*\])\n", re.MULTILINE)
_PINS = re.compile(r"^(revision|sha256|size) = .*$", re.MULTILINE)


def leave_open(path: Path) -> None:
    """Removes from a manifest all that pins its weights."""
    path.write_text(_PINS.sub(r'\1 = "unlocked"', _ADDED.sub("", path.read_text())))


def copy_open(name: str, folder: Path) -> Path:
    """Copies a manifest of the mission into a folder, without what pins its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(shutil.copy(MANIFESTS / f"{name}.toml", folder))
    leave_open(path)
    return path


def pin(path: Path, sha256: str, **stated: str | int | list[str]) -> None:
    """States the hash of weights in a manifest that leaves them open, and more of them.

    Args:
        path: The manifest.
        sha256: The hash.
        stated: Other fields of its weights.
    """
    text = path.read_text().replace('sha256 = "unlocked"', f'sha256 = "{sha256}"', 1)
    for name, value in stated.items():
        line = f"{name} = {value!r}".replace("'", '"')
        replaced = re.sub(rf'^{name} = "unlocked"$', line, text, flags=re.MULTILINE)
        text = (
            replaced
            if replaced != text
            else text.replace("\n[backbone]", f"{line}\n\n[backbone]", 1)
        )
    path.write_text(text)
