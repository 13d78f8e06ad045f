"""Timm's facts of every tag, in a file: importing timm takes seconds, and planning does without.

An export, which imports timm, writes the file if there is none; ``zoo-farm facts`` does so, too. It
belongs to the installed files of timm, whatever their version is called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from builders.recipe.pretrained import PretrainedFacts
from builders.weights import cache_dir
from zoo.util.digest import sha256_bytes
from zoo.util.files import write_whole

Facts: TypeAlias = Mapping[str, PretrainedFacts]
_TABLE = TypeAdapter(dict[str, PretrainedFacts])


def table_path() -> Path | None:
    """Returns the file of the installed timm; None if timm is not installed, or is a checkout."""
    try:
        timm = distribution("timm")
    except PackageNotFoundError:
        return None
    files, origin = timm.read_text("RECORD"), timm.read_text("direct_url.json")
    if not files or (origin and json.loads(origin).get("dir_info", {}).get("editable")):
        return None  # its files may change under the same name
    return cache_dir() / "timm" / f"{sha256_bytes(files.encode())[:32]}.json"


def read_table() -> Facts:
    """Returns timm's facts by tag; empty if no file has been written, or it is damaged."""
    path = table_path()
    try:
        return _TABLE.validate_json(path.read_bytes()) if path else {}
    except (OSError, ValidationError):
        return {}


def write_table(facts: Facts) -> None:
    """Writes the file. A cache that can't be written is done without."""
    path = table_path()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _TABLE.dump_json(dict(facts)))
    except OSError:
        pass
