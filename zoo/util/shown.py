"""Objects that show themselves in a line, and as a small table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape


class Shown:
    """Gives an object a short ``repr`` and a table in notebooks, from its facts."""

    def _facts(self) -> Mapping[str, str]:
        """Returns what to show, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}: {value}" for name, value in self._facts().items())
        return f"<{type(self).__name__} {facts}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """Returns the first few names as text: ``cat, dog, horse, …``."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
