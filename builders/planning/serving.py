"""Finds the stored engine that serves a wanted one: the same rule for plan, run and explain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from builders.planning.decision import Known
from builders.planning.order import Build
from builders.planning.wanted import Wanted
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import cell_of, served_archs


def serving(build: Build, known: Known) -> str | None:
    """Returns the key of the build record that serves a wanted engine, None if there is none.

    An engine of the same inputs for more architectures serves as well, whether or not the index
    still lists it: the exact one is preferred, then the one for the fewest architectures. One that
    is outdone need not be built again, even if it was deleted.
    """
    return next(
        (
            key
            for key in keys_serving(build)
            if known.entries(key) or known.outdone(key) or known.stored(key)
        ),
        None,
    )


def current_labels(key: str, known: Known) -> set[str]:
    """Returns the targets for which the index gives the engine of a build record."""
    return {
        label for entry in known.entries(key) if entry.superseded is None for label in entry.targets
    }


def is_current(wanted: Wanted, key: str, known: Known) -> bool:
    """Whether the index gives the engine of a build record for all targets of a wanted one."""
    return wanted.cells.issubset(map(cell_of, current_labels(key, known)))


def keys_serving(build: Build) -> Iterator[str]:
    """Yields the keys of all engines that could serve a wanted one, the best first."""
    yield build.key
    if not is_portable(build.alike.toolchain.kind):  # others are built for one architecture
        return
    inputs = build.inputs
    more = sorted(set(served_archs(inputs.toolchain.line)) - set(inputs.archs))
    for count in range(1, len(more) + 1):
        for others in combinations(more, count):
            archs = tuple(sorted((*inputs.archs, *others)))
            yield inputs.model_copy(update={"archs": archs}).key
