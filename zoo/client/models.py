"""The models of a repository, listed by id, pattern or family."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from html import escape
from typing import SupportsIndex, overload

from zoo.client.client import Client, connect, default_store
from zoo.schema.index import IndexRow
from zoo.util.names import no_model


class Models(Sequence[IndexRow]):
    """Models of a repository; shows itself as a table.

    Args:
        rows: The models.
    """

    def __init__(self, rows: Iterable[IndexRow]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, place: SupportsIndex) -> IndexRow: ...

    @overload
    def __getitem__(self, place: slice) -> Models: ...

    def __getitem__(self, place: SupportsIndex | slice) -> IndexRow | Models:
        """Returns a model, or several."""
        if isinstance(place, slice):
            return Models(self._rows[place])
        return self._rows[place]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The models' ids, for :func:`zoo.load`."""
        return tuple(row.model for row in self._rows)

    def __repr__(self) -> str:
        return "\n".join(table(self._rows)) if self._rows else _NONE

    def _repr_html_(self) -> str:
        if not self._rows:
            return f"<p>{_NONE}</p>"
        heads = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in _HEADS)
        rows = "".join(
            "<tr>"
            + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in _cells(row))
            + "</tr>"
            for row in self._rows
        )
        return f"<table><tr>{heads}</tr>{rows}</table>"


def list_models(
    pattern: str | Sequence[str] = (),
    *,
    store: str | None = None,
    trust: str | None = None,
    allow_stale: bool = False,
    anonymous: bool = False,
    client: Client | None = None,
) -> Models:
    """Lists the models of a repository.

    Without a network, the list is the one that was read last.

    Args:
        pattern: An id, a pattern such as ``vit_*``, or a family; or several of them. All models by
            default; what matches nothing adds nothing.
        store: URL or path of the repository. Defaults to ``$ZOO_STORE``, else ``./_repository``.
        trust: Root of trust on first use of the repository: a file, or its SHA-256.
        allow_stale: Accept an expired index.
        anonymous: Read a bucket without credentials.
        client: Client to use instead of connecting to ``store``.

    Raises:
        RepositoryError: The repository is missing or damaged.
        TrustError: The repository is not trusted yet, or its signatures are not valid.
    """
    client = client or connect(
        store or default_store(), trust=trust, allow_stale=allow_stale, anonymous=anonymous
    )
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return Models(matching(client.index().models, patterns))


def matching(rows: Sequence[IndexRow], patterns: Sequence[str]) -> list[IndexRow]:
    """Returns the models that any of the patterns matches, in their order; all without patterns."""
    if not patterns:
        return list(rows)
    return [row for row in rows if any(_matches(row, pattern) for pattern in patterns)]


def check_patterns(rows: Sequence[IndexRow], patterns: Sequence[str]) -> None:
    """Checks that each pattern matches a model.

    Raises:
        UsageError: One matches none; names those that may have been meant.
    """
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in rows):
            raise no_model(pattern, [row.model for row in rows], {row.family for row in rows})


def _matches(row: IndexRow, pattern: str) -> bool:
    return fnmatch.fnmatchcase(row.model, pattern) or row.family == pattern


def table(rows: Sequence[IndexRow]) -> list[str]:
    """Returns the lines of a table of models."""
    lines = [_HEADS, *(_cells(row) for row in rows)]
    name, family, width, pixels = (max(len(line[place]) for line in lines) for place in range(4))
    return [
        f"{line[0]:<{name + 2}}{line[1]:<{family + 2}}{line[2]:>{width}}  {line[3]:>{pixels}}  "
        f"{line[4]}"
        for line in lines
    ]


_NONE = "no models"
_HEADS = ("model", "family", "features", "pixels", "engines")


def _cells(row: IndexRow) -> tuple[str, str, str, str, str]:
    return row.model, row.family, str(row.feature_dim), row.pixels, row.engines
