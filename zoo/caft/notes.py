"""Notes on a data set: what was left out, ignored or put together, counted and by name."""

from __future__ import annotations

_NAMED = 3


class Notes:
    """Counts what a source met, with the first names of each kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Counts something of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _NAMED:
            names.append(name)

    def clear(self) -> None:
        """Forgets everything; a source calls this when it starts from the beginning."""
        self._counts.clear()
        self._names.clear()

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(self._counts)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each kind: how many, and which come first."""
        return tuple(
            f"{kind}: {count:,} ({', '.join(self._names[kind])}{', …' if count > _NAMED else ''})"
            for kind, count in self._counts.items()
        )
