"""The card of a feature cache: which engine made it, from what, and how. JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from zoo.caft.augment import Augmentation
from zoo.inference.extractor import Extractor
from zoo.schema.manifest import Preprocess
from zoo.schema.records import Record
from zoo.util.digest import Sha256
from zoo.util.errors import CacheError
from zoo.util.files import write_whole

CARD = "card.json"
Storage = Literal["fp32", "fp16"]


class Identity(Record):
    """What rows must have in common to lie in one cache.

    Attributes:
        model: Manifest id.
        engine: SHA-256 of the engine.
        target: Label of a target that it serves.
        preprocess: How photos became its input.
        feature_dim: Width of a row.
        storage: Type of the stored features.
        augmentation: Which views of an image there are.
        dry_run: Whether the weights were seeded.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    engine: Sha256
    target: str
    preprocess: Preprocess
    feature_dim: int
    storage: Storage
    augmentation: Augmentation
    dry_run: bool = False

    @classmethod
    def of(cls, extractor: Extractor, storage: Storage, augmentation: Augmentation) -> Identity:
        """Returns the identity of what an extractor gives."""
        record = extractor.record
        return cls(
            model=record.inputs.model,
            engine=record.engine.sha256,
            target=record.targets[0],
            preprocess=record.inputs.preprocess,
            feature_dim=record.feature_dim,
            storage=storage,
            augmentation=augmentation,
            dry_run=record.dry_run,
        )


class Card(Record):
    """``card.json``: a cache's identity, and where it stands.

    Attributes:
        identity: What its rows have in common.
        complete: Whether the last pass came to its end.
        samples: Images in it; there are ``samples * views`` rows.
        bad: Images that were left out.
        labels: Names of the classes; ``labels.npy`` has their numbers.
        source: Which data set it is of.
        seconds: What the passes took, decoding included.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    identity: Identity
    complete: bool = False
    samples: int = 0
    bad: int = 0
    labels: tuple[str, ...] = ()
    source: str = ""
    seconds: float = 0.0


def read_card(folder: Path) -> Card | None:
    """Reads a cache's card; None where there is none.

    Raises:
        CacheError: It is no card.
    """
    path = folder / CARD
    try:
        return Card.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CacheError(
            f"{path}: not the card of a feature cache: {reason}",
            hint="make the features again in another folder: zoo features ... -o FOLDER",
        ) from error


def write_card(folder: Path, card: Card) -> None:
    """Writes a cache's card."""
    write_whole(folder / CARD, card.to_json())


def check_same(folder: Path, have: Identity, wanted: Identity) -> None:
    """Checks that rows may be added to a cache.

    Raises:
        CacheError: They are of another engine or made in another way; says which and how.
    """
    old, new = have.model_dump(mode="json"), wanted.model_dump(mode="json")
    differ = [name for name in new if old.get(name) != new[name]]
    if not differ:
        return
    said = "; ".join(f"{_WORDS.get(name, name)} {_short(old.get(name))}" for name in differ)
    wants = "; ".join(_short(new[name]) for name in differ)
    raise CacheError(
        f"{folder} holds rows of {said}; these would be {wants}",
        hint="rows of different engines don't mix: give another folder, or the same options",
    )


_WORDS = {"target": "target", "engine": "engine", "feature_dim": "width"}


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
