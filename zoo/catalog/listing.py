"""The index page's data: a card per model, a row per engine, and the filters' choices.

The page's HTML holds the first rows of every card; the script reads all rows from JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypedDict

from pydantic import JsonValue

from zoo.catalog import facts
from zoo.catalog.facts import Badge
from zoo.catalog.gpus import arch_name, gpu_table, known_as, products_of, slug
from zoo.schema.closed import Unknown
from zoo.schema.index import DisabledCell, EngineEntry, ModelIndex
from zoo.schema.records import Status
from zoo.schema.targets import PRECISIONS, Label, RuntimeLine
from zoo.schema.targets_table import target_table

ROWS_IN_PAGE = 150
"""Rows in the HTML, over all cards; every card has at least one."""

_REASON = 120  # characters of a reason on the index page; the model's page shows all of it


@dataclass(frozen=True, kw_only=True)
class Row:
    """An engine on the index page, or a disabled cell.

    Attributes:
        archs: Architectures that it runs on.
        precision: Its precision, with ``mixed`` if some operators run in a higher one.
        line: Runtime line, ``rtx1.7``.
        runtime: Name and version of the runtime.
        badges: Its labels.
        page: The engine's page, relative to the site; the model's page for a disabled cell.
        size: Size in bytes.
        cosine: The lowest cosine of any image.
        rate: Images per second at the fastest batch size.
        rate_batch: That batch size.
        note: Why the cell is disabled; None for an engine.
    """

    archs: tuple[str, ...]
    precision: str
    line: str
    runtime: str
    badges: tuple[Badge, ...]
    page: str
    size: int | None = None
    cosine: float | None = None
    rate: float | None = None
    rate_batch: int | None = None
    note: str | None = None

    @property
    def gpus(self) -> str:
        """Its best-known GPUs: ``RTX 30, A10, A40``."""
        return " · ".join(filter(None, map(known_as, self.archs)))


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model on the index page.

    Attributes:
        model: Its index.
        page: Path of its page.
        rows: Its engines, then its disabled cells.
        shown: Number of rows in the HTML.
    """

    model: ModelIndex
    page: str
    rows: tuple[Row, ...]
    shown: int


def cards(models: Sequence[ModelIndex]) -> list[Card]:
    """Returns a card per model, ordered by title."""
    limit = max(1, ROWS_IN_PAGE // max(1, len(models)))
    ordered = sorted(models, key=lambda model: (model.catalog.title.lower(), model.model))
    return [
        Card(
            model=model,
            page=facts.model_page(model.model),
            rows=(rows := _rows(model)),
            shown=min(limit, len(rows)),
        )
        for model in ordered
    ]


def _rows(model: ModelIndex) -> tuple[Row, ...]:
    """Returns a model's rows by architecture: what is verified and on the newest runtime first."""
    order = list(target_table().arch)
    precisions: list[str] = list(PRECISIONS)

    def place(precision: str, row: Row) -> tuple[int, int, str]:
        arch = row.archs[0] if row.archs else ""
        return (
            order.index(arch) if arch in order else len(order),
            precisions.index(precision) if precision in precisions else len(precisions),
            row.page,
        )

    engines, disabled = [], []
    for one in model.current:
        row = _engine_row(model.model, one)
        arch, *rest = place(one.precision, row)
        verified = one.status == Status.VERIFIED
        engines.append(((arch, not verified, facts.newest_runtime_first(one), *rest), row))
    for cell in model.disabled:
        row = _disabled_row(model.model, cell)
        arch, *rest = place(cell.precision, row)
        disabled.append(((arch, row.line, *rest), row))
    return tuple(row for part in (engines, disabled) for _, row in sorted(part, key=itemgetter(0)))


def _engine_row(model: str, engine: EngineEntry) -> Row:
    best = facts.best_rate(engine)
    return Row(
        archs=facts.archs_of(engine),
        precision=facts.precision_words(engine),
        line=str(engine.toolchain.line),
        runtime=facts.runtime_words(engine),
        badges=tuple(facts.badges(engine)),
        page=facts.engine_page(model, engine.record),
        size=engine.engine.size,
        cosine=facts.worst_cosine(engine),
        rate=best.images_per_second if best else None,
        rate_batch=best.batch if best else None,
    )


def _disabled_row(model: str, cell: DisabledCell) -> Row:
    labels = [Label.read(text) for text in cell.targets]
    line = next((label.line for label in labels if label.line), "")
    reason = cell.reason if len(cell.reason) <= _REASON else cell.reason[:_REASON].rstrip() + "…"
    return Row(
        archs=tuple(dict.fromkeys(arch for label in labels for arch in label.archs)),
        precision=cell.precision,
        line=line,
        runtime=line_title(line),
        badges=(facts.DISABLED,),
        page=facts.model_page(model),
        note=reason,
    )


def line_title(line: str) -> str:
    """Returns a runtime line's title, ``TensorRT 11.4``; the text itself for an unknown line."""
    read = RuntimeLine.read(line)
    return read.title if not isinstance(read.kind, Unknown) else line


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A choice of a filter: ``value`` in the URL, ``text`` on the page."""

    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ArchChoice:
    """An architecture with its products."""

    arch: str
    name: str
    products: tuple[Choice, ...]

    @property
    def known(self) -> str:
        """Its name in rows."""
        return known_as(self.arch)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The choices of the page's filters."""

    archs: tuple[ArchChoice, ...]
    lines: tuple[Choice, ...]
    precisions: tuple[Choice, ...]
    families: tuple[Choice, ...]
    features: tuple[Choice, ...]


def arch_choices(own: set[str]) -> tuple[ArchChoice, ...]:
    """Returns the choices of GPUs: those that engines exist for, and all other known products."""
    archs = [*target_table().arch, *sorted(own - set(target_table().arch))]
    return tuple(
        ArchChoice(
            arch=arch,
            name=arch_name(arch),
            products=tuple(Choice(value=slug(name), text=name) for name in products_of(arch)),
        )
        for arch in archs
        if arch in own or arch in gpu_table()
    )


def filters(listed: Sequence[Card]) -> Filters:
    """Returns the filters' choices.

    They are those that occur in the cards. Only GPUs without an engine are listed too, so that a
    reader learns that nothing is published for theirs.
    """
    rows = [row for card in listed for row in card.rows]
    own = {arch for row in rows for arch in row.archs}
    models = [card.model for card in listed]
    precisions = {str(engine.precision) for model in models for engine in model.current}
    precisions |= {str(cell.precision) for model in models for cell in model.disabled}
    return Filters(
        archs=arch_choices(own),
        lines=tuple(
            Choice(value=line, text=line_title(line)) for line in sorted({row.line for row in rows})
        ),
        precisions=tuple(
            Choice(value=name, text=name)
            for name in (*PRECISIONS, *sorted(precisions - set(PRECISIONS)))
        ),
        families=tuple(
            Choice(value=name, text=name) for name in sorted({card.model.family for card in listed})
        ),
        features=tuple(
            Choice(value=str(width), text=f"{width:,}")
            for width in sorted({card.model.feature_dim for card in listed})
        ),
    )


class PageData(TypedDict):
    """The JSON for the page's script.

    Attributes:
        models: Id, feature width, family, licence, timm name and pixels of each card's model.
        words: The strings that rows refer to.
        badges: Word, tone and reason of the badges that rows refer to.
        rows: Card, architectures, precision, line, runtime, badges, page, MiB, cosine, images per
            second, batch, note.
    """

    models: list[tuple[str, int, str, str, str, int]]
    words: list[str]
    badges: list[tuple[str, str, str]]
    rows: list[list[JsonValue]]


def page_data(listed: Sequence[Card]) -> PageData:
    """Returns the JSON for the page's script: rows as lists, repeated strings in tables.

    A row holds: card, architectures, precision, line, runtime, badges, page, MiB, cosine, images
    per second, batch, note. Strings are indices into ``words``, badges into ``badges``.
    """
    words: dict[str, int] = {}
    known: dict[Badge, int] = {}

    def word(text: str) -> int:
        return words.setdefault(text, len(words))

    rows: list[list[JsonValue]] = [
        [
            number,
            word(" ".join(row.archs)),
            word(row.precision),
            word(row.line),
            word(row.runtime),
            [known.setdefault(badge, len(known)) for badge in row.badges],
            row.page.rpartition("/")[2].removesuffix(".html") if row.note is None else "",
            row.size and round(row.size / 2**20, 1),
            row.cosine and float(facts.cosine(row.cosine)),
            row.rate and round(row.rate, 0 if row.rate >= 100 else 1),
            row.rate_batch,
            *([row.note] if row.note else []),
        ]
        for number, card in enumerate(listed)
        for row in card.rows
    ]
    return {
        "models": [
            (
                card.model.model,
                card.model.feature_dim,
                card.model.family,
                card.model.licence,
                card.model.timm_name,
                card.model.preprocess.height,
            )
            for card in listed
        ],
        "words": list(words),
        "badges": [(badge.word, badge.tone, badge.why or "") for badge in known],
        "rows": rows,
    }
