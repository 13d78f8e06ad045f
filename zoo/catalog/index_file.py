"""The site's ``index.json``: everything that the pages show, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from zoo.catalog.facts import engine_page, model_page
from zoo.catalog.gpus import gpu_table
from zoo.catalog.place import Place
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import Kind, Record
from zoo.util.digest import canonical_json

SCHEMA = "index.schema.json"
"""File name of its JSON schema."""


class SiteEngine(EngineEntry):
    """An engine and its page.

    Attributes:
        page: Relative to the site.
    """

    page: str


class SiteModel(ModelIndex):
    """A model and its page.

    Attributes:
        engines: Its engines, superseded ones included.
        page: Relative to the site.
    """

    engines: tuple[SiteEngine, ...]
    page: str


class SiteIndex(Record):
    """The site's ``index.json``.

    Attributes:
        kind: Whether the weights are trained ones (a release) or random ones (a dry run).
        repository: The repository's public URL, None if the site was built without it.
        gpus: Products by architecture.
        models: All models, with their engines.
    """

    kind: Kind
    repository: str | None = None
    gpus: dict[str, tuple[str, ...]]
    models: tuple[SiteModel, ...]


def index_file(models: Sequence[ModelIndex], kind: Kind, place: Place) -> bytes:
    """Returns ``index.json``."""
    listed = []
    for model in models:
        data = model.model_dump(mode="json")
        for engine in data["engines"]:
            engine["page"] = engine_page(model.model, engine["record"])
        listed.append({**data, "page": model_page(model.model)})
    index = {
        "schema_version": SiteIndex.model_fields["schema_version"].default,
        "kind": kind,
        "repository": place.url,
        "gpus": {arch: known.products for arch, known in gpu_table().items()},
        "models": listed,
    }
    return canonical_json(index) + b"\n"


def schema_file() -> bytes:
    """Returns the JSON schema of ``index.json``."""
    schema = SiteIndex.model_json_schema(mode="serialization")
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return (json.dumps(named, indent=1) + "\n").encode()
