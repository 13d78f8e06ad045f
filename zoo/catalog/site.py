"""Writes the catalog: pages of models and engines, the index page, the report, ``index.json``.

The pages of a model whose index entry has not changed are left as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.catalog import engine_page, facts, listing, model_page, report
from zoo.catalog.engine_page import Origin
from zoo.catalog.gpus import known_as
from zoo.catalog.index_file import SCHEMA, index_file, schema_file
from zoo.catalog.night import Drift, NightlyRun
from zoo.catalog.place import Place
from zoo.catalog.render import ASSETS, TEMPLATES, render
from zoo.catalog.report import ModelReport
from zoo.catalog.site_report import Expected, SiteReport, combine
from zoo.catalog.state import STATE, ModelState, SiteState, read_state, write
from zoo.client.recommendation import verdicts
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.layout import blob_key
from zoo.schema.licences import allowed_licences, licence_text, notice_text
from zoo.schema.records import Blob, BuildRecord, ExportRecord, Kind
from zoo.util.digest import sha256_bytes, sha256_json
from zoo.util.errors import RepositoryError, TooLongError

DATA_IN_PAGE = 160_000
"""Bytes of rows that the index page carries; more are a file, which the script fetches."""

DATA = "rows.json"
"""That file."""

_STATEMENT = 1 << 20  # bytes that a provenance file may have


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all pages share.

    Attributes:
        repository: What is shown.
        folder: Where the site goes.
        kind: Whether the weights are real.
        place: Where readers find the repository.
    """

    repository: Repository
    folder: Path
    kind: Kind
    place: Place

    def write(self, name: str, template: str, **values: Any) -> str:
        """Writes a page and returns its name."""
        page = render(
            template,
            root="../" * name.count("/"),
            dry_run=self.kind == Kind.DRY_RUN,
            place=self.place,
            **values,
        )
        write(self.folder / name, page)
        return name


def build_site(
    repository: Repository,
    folder: Path,
    place: Place | None = None,
    nightly: NightlyRun | None = None,
    expected: Expected | None = None,
) -> None:
    """Writes the site. What is right already is left, what belongs to no engine any more is gone.

    Of a model whose index is what it was, no record is read and no page is made.

    Args:
        repository: What to show; something is published in it.
        folder: Where the site goes.
        place: Where readers find the repository, if that is known.
        nightly: What the last run says of itself, for the report.
        expected: What there could be, for the report.
    """
    index = repository.index()
    digests = {row.model: row.index.sha256 for row in index.models} if index else {}
    kind = (index.kind if index else repository.kind()) or Kind.RELEASE
    site = Site(repository=repository, folder=folder, kind=kind, place=place or Place())
    models = list(repository.model_indexes())
    folder.mkdir(parents=True, exist_ok=True)

    old, maker = read_state(folder), _maker(site)
    states: dict[str, ModelState] = {}
    for model in models:
        known = old.models.get(model.model) if old.maker == maker else None
        if known is None or known.index != digests[model.model] or not _are_there(known, folder):
            known = _write_model(site, model, digests[model.model])
        states[model.model] = known
    found = combine((state.report for state in states.values()), expected or Expected())
    files = _write_rest(site, models, found, nightly)
    new = SiteState(maker=maker, models=states, files=tuple(files))
    for name in old.everything - new.everything:
        (folder / name).unlink(missing_ok=True)
    write(folder / STATE, (new.model_dump_json() + "\n").encode())


def _maker(site: Site) -> str:
    """Returns the digest of all that decides a page beside the repository."""
    package = Path(__file__).parent
    code = [*sorted(package.glob("*.py")), *sorted(TEMPLATES.iterdir())]
    code += [package / "gpus.toml", *sorted(package.parent.glob("*.toml"))]
    return sha256_json(
        {
            "code": {path.name: sha256_bytes(path.read_bytes()) for path in code if path.is_file()},
            "place": [site.place.url, site.place.own],
            "kind": site.kind,
        }
    )


def _are_there(state: ModelState, folder: Path) -> bool:
    return all((folder / name).is_file() for name in state.files)


def _write_rest(
    site: Site, models: list[ModelIndex], found: SiteReport, nightly: NightlyRun | None
) -> list[str]:
    """Writes what is not a model's own: the index, the report, data and assets."""
    folder = site.folder
    files = list(ASSETS)
    for name in ASSETS:
        write(folder / name, (TEMPLATES / name).read_bytes())
    for licence in sorted({model.licence for model in models} & set(allowed_licences())):
        files.append(f"licences/{licence}.txt")
        write(folder / files[-1], licence_text(licence).encode())
    files += ["index.json", SCHEMA]
    write(folder / "index.json", index_file(models, site.kind, site.place))
    write(folder / SCHEMA, schema_file())
    titles = {model.model: model.catalog.title for model in models}
    files.append(
        site.write("report.html", "report.html", report=found, nightly=nightly, titles=titles)
    )

    cards = listing.cards(models)
    rows = listing.page_data(cards)
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    apart = len(text) > DATA_IN_PAGE
    if apart:
        files.append(DATA)
        write(folder / DATA, text)
    page = site.write(
        "index.html", "index.html",
        cards=cards, filters=listing.filters(cards), data=None if apart else rows, data_file=DATA,
        engines=sum(len(facts.by_record(model.current)) for model in models),
    )  # fmt: skip
    return [*files, page]


def _write_model(site: Site, model: ModelIndex, digest: str) -> ModelState:
    """Writes the pages of a model and of its engines."""
    exports: dict[str, ExportRecord | None] = {}
    origins = {
        record: _origin(site.repository, model.model, entries[0], exports)
        for record, entries in facts.by_record(model.engines).items()
    }
    notice = notice_text(
        title=model.catalog.title,
        model=model.model,
        licence=model.licence,
        origin=model.origin,
        weights=model.weights,
    )
    page = site.write(
        facts.model_page(model.model), "model.html",
        model=model, grid=model_page.grid(model), charts=model_page.speed_charts(model),
        torch_charts=model_page.torch_charts(model),
        accuracy=model_page.accuracy(model), width=model_page.width(model.feature_dim),
        classes=model_page.CLASSES, snippet=model_page.preprocess_snippet(model),
        verdicts=verdicts(model.model_copy(update={"engines": model.current})),
        notice=notice, has_licence=model.licence in allowed_licences(),
    )  # fmt: skip
    files = [page]
    for record, entries in facts.by_record(model.engines).items():
        files.append(_write_engine(site, model, entries, origins[record]))
    return ModelState(index=digest, files=tuple(files), report=_report(model, origins))


def _write_engine(site: Site, model: ModelIndex, entries: list[EngineEntry], origin: Origin) -> str:
    first = entries[0]
    return site.write(
        facts.engine_page(model.model, first.record), "engine.html",
        model=model, engine=first, entries=entries, origin=origin,
        known=" and ".join(filter(None, map(known_as, facts.archs_of(_whole(entries))))),
        file_name=engine_page.file_name(model.model, first),
        requirements=engine_page.requirements(_whole(entries), origin.record),
        commands=engine_page.commands(model, _whole(entries), site.place),
        rebuild=engine_page.rebuild(model, first, origin.record),
        provenance=engine_page.provenance(first, origin),
        history=engine_page.history(model, entries, origin.attestations),
    )  # fmt: skip


def _whole(entries: list[EngineEntry]) -> EngineEntry:
    """Returns an engine with all the targets that it serves."""
    targets = tuple(label for entry in entries for label in entry.targets)
    return entries[0].model_copy(update={"targets": targets})


def _report(model: ModelIndex, origins: dict[str, Origin]) -> ModelReport:
    rebuilt: list[report.Rebuilt] = []
    drift: list[Drift] = []
    for engine, previous, label in report.successions(model):
        drift += report.drift(model.model, previous, engine, label)
        before, after = origins[previous.record], origins[engine.record]
        changed: tuple[report.Change, ...] = ()
        if before.record is not None and after.record is not None:
            changed = report.why_rebuilt(
                (before.record, before.export), (after.record, after.export)
            )
        rebuilt.append(
            report.Rebuilt(
                model=model.model,
                targets=engine.targets,
                record=engine.record,
                previous=previous.record,
                created=engine.created,
                changed=changed,
            )
        )
    return ModelReport(
        rebuilt=tuple(rebuilt),
        drift=tuple(drift),
        missing=tuple(report.missing(model)),
        newest=tuple(report.newest(model)),
    )


def _origin(
    repository: Repository,
    model: str,
    entry: EngineEntry,
    exports: dict[str, ExportRecord | None],
) -> Origin:
    """Reads what there is about an engine beside the index; an export only once.

    Raises:
        RepositoryError: Its record is not what the index says.
    """
    record = _record(repository, model, entry)
    if record is None:
        return Origin(attestations=tuple(repository.attestations(entry.engine.sha256)))
    if record.export_key not in exports:
        exports[record.export_key] = _export(repository, model, record)
    return Origin(
        record=record,
        export=exports[record.export_key],
        attestations=tuple(repository.attestations(entry.engine.sha256)),
        provenance=_statement(repository, record.files.get("provenance")),
    )


def _record(repository: Repository, model: str, entry: EngineEntry) -> BuildRecord | None:
    try:
        data = repository.listed_bytes(model, entry)
    except TooLongError:
        raise
    except RepositoryError:
        return None  # a mirror may have been made without it
    return repository.parse_listed(model, entry, data)


def _export(repository: Repository, model: str, record: BuildRecord) -> ExportRecord | None:
    """Returns what an engine was built from, when its inputs have the key that the record names."""
    export = repository.export(model, record.export_key)
    return export if export is not None and export.inputs.key == record.export_key else None


def _statement(repository: Repository, blob: Blob | None) -> dict[str, Any] | None:
    if blob is None or blob.size > _STATEMENT:
        return None
    try:
        data = repository.store.get(blob_key(blob.sha256), limit=blob.size)
    except (KeyError, TooLongError):
        return None
    if sha256_bytes(data) != blob.sha256:
        return None
    found = json.loads(data)
    return found if isinstance(found, dict) else None
