"""Timm's facts of every tag, in a file: importing timm takes seconds, and planning does without.

An export, which imports timm, writes the file if it says something else; ``zoo-farm facts`` does
so, too. It belongs to the installed files of timm, whatever their version is called, and states a
digest of its own content. It may clear a manifest, never refuse one: only timm does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, TypeAdapter, ValidationError

from builders.recipe.pretrained import PretrainedFacts, check_facts
from builders.weights import cache_dir
from zoo.schema.manifest import HubWeights, Manifest
from zoo.util.digest import sha256_bytes
from zoo.util.errors import ManifestError
from zoo.util.files import write_whole
from zoo.util.loading import parse_json

Facts: TypeAlias = Mapping[str, PretrainedFacts]
_FACTS = TypeAdapter(dict[str, PretrainedFacts])


class DamagedTableError(Exception):
    """The file is there, but not as it was written."""


class _Table(BaseModel):
    """The file: the facts as JSON, and the digest of that text."""

    sha256: str
    facts: str


def table_path() -> Path | None:
    """Returns the file of the installed timm; None if timm is not installed, or is a checkout."""
    try:
        timm = distribution("timm")
    except PackageNotFoundError:
        return None
    files, origin = timm.read_text("RECORD"), timm.read_text("direct_url.json")
    if not files or (origin and parse_json(origin).get("dir_info", {}).get("editable")):
        return None  # its files may change under the same name
    return cache_dir() / "timm" / f"{sha256_bytes(files.encode())[:32]}.json"


def read_table() -> Facts:
    """Returns timm's facts by tag; empty if no file has been written, or none can be read.

    Raises:
        DamagedTableError: Its content is not what was written.
    """
    path = table_path()
    try:
        content = path.read_bytes() if path else None
    except OSError:
        return {}
    if content is None:
        return {}
    try:
        table = _Table.model_validate_json(content)
        if sha256_bytes(table.facts.encode()) != table.sha256:
            raise DamagedTableError
        return _FACTS.validate_json(table.facts)
    except ValidationError as error:  # cut short, empty, or of an earlier version
        raise DamagedTableError from error


def write_table(facts: Facts) -> None:
    """Writes the file, unless it says the same. A cache that can't be written is done without."""
    path = table_path()
    if path is None:
        return
    text = _FACTS.dump_json(dict(facts)).decode()
    content = _Table(sha256=sha256_bytes(text.encode()), facts=text).model_dump_json().encode()
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError:
        pass


def clears(facts: Facts, manifest: Manifest) -> bool:
    """Whether a manifest agrees with the table; if not, timm itself has to be asked.

    Args:
        facts: The table.
        manifest: The model.
    """
    of_arch = [fact for name, fact in facts.items() if name.partition(".")[0] == manifest.arch]
    stated = facts.get(manifest.timm_name) if manifest.tag else None
    weights = manifest.weights
    if manifest.tag and stated is None:
        return False  # perhaps timm has no such tag
    if not manifest.tag and not of_arch:
        return False  # perhaps timm has no such architecture
    tagged = {fact.repository for fact in of_arch} if not manifest.tag else set()
    if isinstance(weights, HubWeights) and weights.repository in tagged:
        return False  # those of a tag that the manifest does not name
    try:
        check_facts(manifest, stated, "")
    except ManifestError:
        return False
    return True
