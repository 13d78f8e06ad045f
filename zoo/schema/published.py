"""What plans read of a model's index: few fields of each engine, in a fraction of the time."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from zoo.schema.index import EngineEntry, ModelIndex, OutdoneEngine
from zoo.schema.records import NEWEST, SCHEMA_VERSION, Status
from zoo.schema.targets import Toolchain


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)


class _Versioned(_Part):
    schema_version: Annotated[int, Field(le=NEWEST)] = SCHEMA_VERSION


class PublishedVerdict(_Part):
    """Part of a :class:`~zoo.schema.index.VerificationSummary`."""

    key: str | None = None


class PublishedCost(_Part):
    """Part of a :class:`~zoo.schema.measurements.Cost`."""

    seconds: float | None = None
    proof_seconds: float | None = None


class PublishedBlob(_Part):
    """Part of a :class:`~zoo.schema.records.Blob`."""

    sha256: str
    size: int


class PublishedEngine(_Versioned):
    """Part of an :class:`~zoo.schema.index.EngineEntry`."""

    record: str
    superseded: str | None = None
    targets: tuple[str, ...]
    status: Status
    reason: str | None = None
    engine: PublishedBlob
    toolchain: Toolchain
    verification: PublishedVerdict | None = None
    cost: PublishedCost
    created: str


class PublishedCatalogText(_Part):
    """Part of a :class:`~zoo.schema.manifest.CatalogText`."""

    title: str


class PublishedModel(_Versioned):
    """Part of a :class:`~zoo.schema.index.ModelIndex`."""

    model: str
    licence: str
    origin: str
    catalog: PublishedCatalogText
    outdone: tuple[OutdoneEngine, ...] = ()
    engines: tuple[PublishedEngine, ...]

    @property
    def facts(self) -> dict[str, str]:
        """The facts about the model that are no inputs of its engines, by name."""
        return {"licence": self.licence, "origin": self.origin, "title": self.catalog.title}

    @property
    def current(self) -> tuple[PublishedEngine, ...]:
        """Its engines without the superseded ones."""
        return tuple(engine for engine in self.engines if engine.superseded is None)


AnyEngine: TypeAlias = EngineEntry | PublishedEngine
"""An engine in the index, as runs or as plans read it."""

AnyModel: TypeAlias = ModelIndex | PublishedModel
"""A model's index, as runs or as plans read it."""
