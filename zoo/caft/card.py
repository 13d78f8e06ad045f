"""The card of a feature cache, JSON: the engine, the data set and the settings that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from zoo.caft.augment import Augmentation
from zoo.inference.extractor import Extractor
from zoo.inference.preprocess import Exif
from zoo.schema.manifest import Preprocess
from zoo.schema.records import Record
from zoo.util.digest import Sha256
from zoo.util.errors import CacheError
from zoo.util.files import write_whole
from zoo.util.loading import LARGEST_JSON, read_regular
from zoo.util.shown import Shown

CARD = "card.json"
Storage = Literal["fp32", "fp16"]


class Identity(Shown, Record):
    """The engine and settings that all rows of a cache share.

    Attributes:
        model: Manifest id.
        engine: SHA-256 of the engine.
        target: Label of a target that it serves.
        preprocess: How photos were preprocessed.
        feature_dim: Width of a row.
        storage: Data type of the stored features.
        augmentation: The views of each image.
        exif: Whether photos were turned as their EXIF orientation says.
        dry_run: Whether the engine's weights are random.
        decode: Whether photos were decoded at full size, or large JPEG files at a fraction of it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    engine: Sha256
    target: str
    preprocess: Preprocess
    feature_dim: int
    storage: Storage
    augmentation: Augmentation
    exif: Exif = "ignore"
    dry_run: bool = False
    decode: Literal["exact", "fast"] = "exact"

    @classmethod
    def of(
        cls,
        extractor: Extractor,
        storage: Storage,
        augmentation: Augmentation,
        exif: Exif = "ignore",
        *,
        fast: bool = False,
    ) -> Identity:
        """Returns the identity of an extractor's features."""
        record = extractor.record
        return cls(
            model=record.inputs.model,
            engine=record.engine.sha256,
            target=record.targets[0],
            preprocess=record.inputs.preprocess,
            feature_dim=record.feature_dim,
            storage=storage,
            augmentation=augmentation,
            exif=exif,
            dry_run=record.dry_run,
            decode="fast" if fast else "exact",
        )

    def _facts(self) -> dict[str, str]:
        facts = {
            "model": self.model,
            "target": self.target,
            "engine": self.engine[:12],
            "input": f"{self.preprocess.pixels} px",
            "features": f"{self.feature_dim:,} in {self.storage}",
            "views": f"{self.augmentation.views:,}",
        }
        unusual = {
            "EXIF orientation": self.exif != "ignore" and self.exif,
            "photos decoded": self.decode != "exact" and self.decode,
            "weights": self.dry_run and "seeded, not trained",
        }
        return facts | {name: value for name, value in unusual.items() if value}


class Card(Shown, Record):
    """``card.json``: a cache's identity and state.

    Attributes:
        identity: What its rows have in common.
        complete: Whether the last pass finished.
        samples: Number of images; there are ``samples * views`` rows.
        bad: Number of skipped images.
        labels: Names of the classes, by their numbers in ``labels.npy``.
        source: The data set.
        fingerprint: SHA-256 of ``samples.jsonl``, which has the name, content and label of each
            image in order, when the last pass finished; empty before, and in older caches.
        digests: SHA-256 of ``labels.npy`` and ``hashes.npy`` then.
        seconds: Duration of all passes, decoding included.
        decoders: What decoded the photos, with versions. Rows of several may be in a cache: their
            pixels differ by at most one level of 255.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    identity: Identity
    complete: bool = False
    samples: int = 0
    bad: int = 0
    labels: tuple[str, ...] = ()
    source: str = ""
    fingerprint: str = ""
    digests: dict[str, str] = Field(default={})
    seconds: float = 0.0
    decoders: tuple[str, ...] = ()

    def _facts(self) -> dict[str, str]:
        own, views = self.identity, self.identity.augmentation.views
        facts = {
            "images": f"{self.samples:,}" + (f" in {views} views" if views > 1 else ""),
            "classes": f"{len(self.labels):,}",
            "features": f"{own.feature_dim:,} in {own.storage}",
            "model": f"{own.model}, {own.target}",
            "source": self.source,
        }
        if self.bad:
            facts["skipped"] = f"{self.bad:,}"
        return facts if self.complete else {**facts, "state": "incomplete"}


def read_card(folder: Path) -> Card | None:
    """Reads a cache's card, None if there is none.

    Raises:
        CacheError: The file is not a valid card.
    """
    path = folder / CARD
    try:
        return Card.model_validate_json(read_regular(path, LARGEST_JSON))
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CacheError(
            f"{path} is not the card of a feature cache: {reason}",
            hint="extract the features again into another folder: zoo features ... -o FOLDER",
        ) from error


def write_card(folder: Path, card: Card) -> None:
    """Writes a cache's card."""
    write_whole(folder / CARD, card.to_json())


def check_same(folder: Path, have: Identity, wanted: Identity) -> None:
    """Checks that a cache's identity allows new rows.

    Raises:
        CacheError: The new rows come from another engine or other settings; names what differs.
    """
    old, new = have.model_dump(mode="json"), wanted.model_dump(mode="json")
    differ = [name for name in new if old.get(name) != new[name]]
    if not differ:
        return
    has = "; ".join(f"{_WORDS.get(name, name)} {_short(old.get(name))}" for name in differ)
    wants = "; ".join(f"{_WORDS.get(name, name)} {_short(new[name])}" for name in differ)
    raise CacheError(
        f"{folder} has features with {has}; the new ones would have {wants}",
        hint="features of different engines or settings don't mix: use another folder, or the same "
        "options",
    )


_WORDS = {"feature_dim": "width", "exif": "EXIF orientation", "decode": "photos decoded"}


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
