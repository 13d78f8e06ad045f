"""What an index says differently after a run, although nothing was built or verified for it.

Attestations of other runs, machines and models take effect with whatever is signed next, and a
correction needs no build: neither may happen unsaid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import Status
from zoo.schema.targets import EngineName, Label, cell_of


def changes(before: ModelIndex, after: ModelIndex, told: Iterable[str] = ()) -> list[str]:
    """Returns a sentence for each corrected fact, and each engine that has another status.

    Args:
        before: The index of a model before the run.
        after: The index after it.
        told: Labels of engines whose outcome the run reports.
    """
    sentences = [
        f"{after.model}: the index now says the {change.fact} '{change.after}' instead of "
        f"'{change.before}'"
        for change in after.corrected[len(before.corrected) :]
    ]
    reported = {cell for label in told for cell in _cells(label)}
    for entry, was in other_status(before, after):
        if not reported.issuperset(map(cell_of, entry.targets)):
            reason = f": {entry.reason}" if entry.reason else ""
            name = EngineName(after.model, Label.joined(entry.targets))
            sentences.append(f"{name}: the index now says {entry.status} instead of {was}{reason}")
    return sentences


def other_status(before: ModelIndex, after: ModelIndex) -> Iterator[tuple[EngineEntry, Status]]:
    """Yields each engine whose status is another than before, with that status."""
    known = {
        (entry.record, label): entry.status for entry in before.engines for label in entry.targets
    }
    for entry in after.engines:
        for label in entry.targets:
            was = known.get((entry.record, label), entry.status)
            if was is not entry.status:
                yield entry, was
                break


def _cells(label: str) -> Iterator[str]:
    """Yields the targets that an engine's label names."""
    read = EngineName.read(label).label
    for arch in read.archs if read else ():
        assert read is not None
        yield replace(read, archs=(arch,)).cell
