"""Catalog: a repository's index as a static site.

``index.json`` is for programs, ``index.html`` for people. Everything that comes from a manifest or
a record is escaped by Jinja2.
"""

from __future__ import annotations

from pathlib import Path

from zoo.digest import canonical_json
from zoo.index import EngineEntry, ModelIndex, TimedBatch
from zoo.repository import Repository
from zoo.verdict import kept, verdicts

SCHEMA_VERSION = 1


def build_site(repository: Repository, folder: Path) -> None:
    """Writes the site, leaving files that are right already.

    Args:
        repository: What to show; something is published in it.
        folder: Where the site goes.
    """
    models = list(repository.model_indexes())
    kind = repository.kind()
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "models": [model.model_dump(mode="json") for model in models],
    }
    _write(folder / "index.json", canonical_json(data) + b"\n")
    _write(folder / "style.css", _template_bytes("style.css"))
    _write(folder / "index.html", render_index(models, kind == "dry-run").encode())


def render_index(models: list[ModelIndex], dry_run: bool) -> str:
    """Returns the page, HTML.

    Args:
        models: In the order in which they are shown.
        dry_run: Whether the repository holds seeded weights.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("zoo.catalog"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["mib"] = lambda size: f"{size / 2**20:.1f} MiB"
    environment.globals |= {"best_rate": best_rate, "kept": kept, "verdicts": verdicts}
    page: str = environment.get_template("index.html").render(models=models, dry_run=dry_run)
    return page


def best_rate(engine: EngineEntry) -> TimedBatch | None:
    """Returns the benchmark row with the most images per second, None without a benchmark."""
    rows = engine.benchmark.batches if engine.benchmark else ()
    return max(rows, key=lambda row: row.images_per_second, default=None)


def _template_bytes(name: str) -> bytes:
    return (Path(__file__).parent / "templates" / name).read_bytes()


def _write(path: Path, data: bytes) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)
