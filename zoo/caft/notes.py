"""Notes on a data set: counts and names of entries that were skipped, ignored or merged."""

from __future__ import annotations

from typing import Any

_NAMED = 3


class Notes:
    """Counts the notable entries of a source, and keeps the first few names of each kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Counts an entry of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _NAMED:
            names.append(name)

    def clear(self) -> None:
        """Resets all counts; a source calls this when it starts over."""
        self._counts.clear()
        self._names.clear()

    @property
    def counts(self) -> dict[str, int]:
        """Number of entries of each kind."""
        return dict(self._counts)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per kind, with its count and first names."""
        return tuple(
            f"{kind}: {count:,} ({', '.join(self._names[kind])}{', …' if count > _NAMED else ''})"
            for kind, count in self._counts.items()
        )


def notes_of(source: Any) -> tuple[str, ...]:
    """Returns the notes on a source, none if it makes none."""
    notes = getattr(source, "notes", None)
    return notes.lines if isinstance(notes, Notes) else ()
