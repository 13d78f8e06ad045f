"""Writes the site: pages of models and engines, the index page, the report and ``index.json``."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zoo.catalog import engine_page, facts, listing, model_page, report
from zoo.catalog.commands import commands, file_name
from zoo.catalog.engine_page import Origin
from zoo.catalog.gpus import known_as
from zoo.catalog.index_file import SCHEMA, index_file, schema_file
from zoo.catalog.night import Drift, NightlyRun
from zoo.catalog.place import BESIDE, Place
from zoo.catalog.portability import Price, prices
from zoo.catalog.preprocessing import preprocess_snippet, resize_words
from zoo.catalog.render import ASSETS, TEMPLATES, render
from zoo.catalog.report import ModelReport
from zoo.catalog.site_report import Expected, SiteReport, combine, models_by_arch, same_gaps
from zoo.catalog.state import STATE, ModelState, SiteState, read_state, write
from zoo.catalog.use import quick_start, use_box
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.layout import FIRST_ROOT, blob_key
from zoo.schema.licences import allowed_licences, licence_text, notice_text
from zoo.schema.records import Blob, BuildRecord, ExportRecord, Kind
from zoo.stores import folder_of
from zoo.util.digest import sha256_bytes, sha256_json
from zoo.util.errors import RepositoryError, TooLongError

DATA_IN_PAGE = 160_000
"""Bytes of rows embedded in the index page; if there are more, the script fetches a file."""

DATA = "rows.json"
"""Name of that file."""

_STATEMENT = 1 << 20  # largest provenance file that is read, in bytes


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all pages share.

    Attributes:
        repository: The repository that the site shows.
        folder: The folder that the site is written to.
        kind: Whether the weights are trained ones (a release) or random ones (a dry run).
        place: Where readers find the repository.
        measured: What portable engines were measured to cost.
    """

    repository: Repository
    folder: Path
    kind: Kind
    place: Place
    measured: tuple[Price, ...] = ()

    def write(self, name: str, template: str, **values: Any) -> str:
        """Renders a page, writes it if it changed, and returns its name."""
        page = render(
            template,
            root="../" * name.count("/"),
            dry_run=self.kind.seeded,
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
    wheel: Path | None = None,
    measured: tuple[Price, ...] = (),
) -> None:
    """Writes or updates the site.

    Files whose contents did not change are left alone, and pages of engines that no longer exist
    are deleted. If a model's index did not change, its records are not read and its pages are not
    rendered.

    Args:
        repository: The repository to show.
        folder: The folder to write to.
        place: Where readers find the repository, if known.
        nightly: Summary of the last nightly run, for the report.
        expected: What a complete repository would hold, for the report.
        wheel: The client's wheel, which the site offers for download; None if there is none.
        measured: What portable engines were measured to cost.
    """
    index = repository.index()
    digests = {row.model: row.index.sha256 for row in index.models} if index else {}
    kind = (index.kind if index else repository.kind()) or Kind.RELEASE
    folder.mkdir(parents=True, exist_ok=True)
    told = place or Place()
    told = replace(
        told,
        root=_root(repository),
        wheel=wheel.name if wheel is not None else None,
        beside=told.is_folder and _link(folder / BESIDE, repository),
    )
    site = Site(repository=repository, folder=folder, kind=kind, place=told, measured=measured)
    models = list(repository.model_indexes())

    old, maker = read_state(folder), _maker(site)
    states: dict[str, ModelState] = {}
    for model in models:
        state = old.models.get(model.model) if old.maker == maker else None
        if state is None or state.index != digests[model.model] or not _all_exist(state, folder):
            state = _write_model(site, model, digests[model.model])
        states[model.model] = state
    parts = (state.report for state in states.values())
    files = _write_shared(site, models, combine(parts, expected or Expected()), nightly)
    if wheel is not None:
        files.append(wheel.name)
        write(folder / wheel.name, wheel.read_bytes())
    if told.beside:
        files.append(BESIDE)
    new = SiteState(maker=maker, models=states, files=tuple(files))
    for name in old.everything - new.everything:
        _remove(folder / name)
    write(folder / STATE, (new.model_dump_json() + "\n").encode())


def _link(link: Path, repository: Repository) -> bool:
    """Links to the repository's folder, unless something of that name is there already.

    Returns:
        Whether the repository can be read there.
    """
    target = folder_of(repository.store.url)
    if target is None:
        return False
    if link.is_symlink() or not link.exists():
        path = Path(os.path.relpath(target, link.parent.resolve()))
        if not link.is_symlink() or link.readlink() != path:
            with suppress(OSError):  # not every file system has links
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    return link.is_dir()


def _remove(file: Path) -> None:
    if file.is_symlink() or not file.is_dir():  # a publisher may have put the repository there
        file.unlink(missing_ok=True)


def _root(repository: Repository) -> str | None:
    """Returns the SHA-256 of a repository's first root, by which readers trust it."""
    try:
        return sha256_bytes(repository.store.get(FIRST_ROOT, limit=_STATEMENT))
    except KeyError:
        return None


def _maker(site: Site) -> str:
    """Returns the digest of everything besides the repository that a page depends on."""
    package = Path(__file__).parent
    code = [*sorted(package.glob("*.py")), *sorted(TEMPLATES.iterdir())]
    code += [package / "gpus.toml", *sorted(package.parent.glob("*.toml"))]
    return sha256_json(
        {
            "code": {path.name: sha256_bytes(path.read_bytes()) for path in code if path.is_file()},
            "place": asdict(site.place),
            "kind": site.kind,
            "measured": [price.model_dump(mode="json") for price in site.measured],
        }
    )


def _all_exist(state: ModelState, folder: Path) -> bool:
    return all((folder / name).is_file() for name in state.files)


def _write_shared(
    site: Site, models: list[ModelIndex], summary: SiteReport, nightly: NightlyRun | None
) -> list[str]:
    """Writes the files that belong to no single model and returns their names."""
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
        site.write(
            "report.html",
            "report.html",
            report=summary,
            nightly=nightly,
            titles=titles,
            builds=models_by_arch(summary.missing),
            gaps=same_gaps(summary.missing),
        )
    )

    cards = listing.cards(models)
    rows = listing.page_data(cards)
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    too_large = len(text) > DATA_IN_PAGE
    if too_large:
        files.append(DATA)
        write(folder / DATA, text)
    page = site.write(
        "index.html", "index.html",
        cards=cards, filters=listing.filters(cards), quick=quick_start(models, site.place),
        data=None if too_large else rows, data_file=DATA,
        engines=sum(len(facts.by_record(model.current)) for model in models),
    )  # fmt: skip
    return [*files, page]


def _write_model(site: Site, model: ModelIndex, digest: str) -> ModelState:
    """Writes the pages of a model and its engines."""
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
        classes=model_page.CLASSES, snippet=preprocess_snippet(model),
        resize=resize_words(model.preprocess), use=use_box(model, site.place),
        notice=notice, has_licence=model.licence in allowed_licences(),
        prices=prices(site.measured, model.model, model.current),
    )  # fmt: skip
    files = [page]
    for record, entries in facts.by_record(model.engines).items():
        files.append(_write_engine(site, model, entries, origins[record]))
    return ModelState(index=digest, files=tuple(files), report=_report(model, origins, site.place))


def _write_engine(site: Site, model: ModelIndex, entries: list[EngineEntry], origin: Origin) -> str:
    first = entries[0]
    return site.write(
        facts.engine_page(model.model, first.record), "engine.html",
        model=model, engine=first, entries=entries, origin=origin,
        known=" and ".join(filter(None, map(known_as, facts.archs_of(_whole(entries))))),
        file_name=file_name(model.model, first),
        requirements=engine_page.requirements(_whole(entries), origin.record),
        commands=commands(model, _whole(entries), site.place),
        advice=engine_page.advice(model, entries),
        provenance=engine_page.provenance(first, origin),
        history=engine_page.history(model, entries, origin.attestations),
        prices=prices(site.measured, model.model, entries),
    )  # fmt: skip


def _whole(entries: list[EngineEntry]) -> EngineEntry:
    """Merges an engine's index entries into one with all the targets that it serves."""
    targets = tuple(label for entry in entries for label in entry.targets)
    return entries[0].model_copy(update={"targets": targets})


def _report(model: ModelIndex, origins: dict[str, Origin], place: Place) -> ModelReport:
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
        newest=tuple(report.newest(model, place)),
        uncompared=report.is_uncompared(model),
    )


def _origin(
    repository: Repository,
    model: str,
    entry: EngineEntry,
    exports: dict[str, ExportRecord | None],
) -> Origin:
    """Reads an engine's records; export records are read once and kept in ``exports``.

    Raises:
        RepositoryError: The build record does not match the index.
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
        commit=_commit(repository, record.files.get("provenance")),
    )


def _record(repository: Repository, model: str, entry: EngineEntry) -> BuildRecord | None:
    try:
        data = repository.listed.read(model, entry)
    except TooLongError:
        raise
    except RepositoryError:
        return None  # mirrors may leave records out
    return repository.listed.parse(model, entry, data)


def _export(repository: Repository, model: str, record: BuildRecord) -> ExportRecord | None:
    """Returns an engine's export record, None if its inputs do not have the key in the record."""
    export = repository.export(model, record.export_key)
    return export if export is not None and export.inputs.key == record.export_key else None


def _commit(repository: Repository, blob: Blob | None) -> engine_page.Commit | None:
    if blob is None or blob.size > _STATEMENT:
        return None
    try:
        data = repository.store.get(blob_key(blob.sha256), limit=blob.size)
    except (KeyError, TooLongError):
        return None
    if sha256_bytes(data) != blob.sha256:
        return None
    return engine_page.commit_of(data)
