"""Finds the stored engine that serves a wanted one: the same rule for plan, run and explain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from builders.planning.decision import Known
from zoo.schema.keys import BuildInputs
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import served_archs


def serving(build: BuildInputs, known: Known) -> str | None:
    """Returns the key of the build record that serves a wanted engine, None if there is none.

    An engine of the same inputs for more architectures serves as well, whether or not the index
    still lists it: the exact one is preferred, then the one for the fewest architectures.
    """
    return next(
        (key for key in keys_serving(build) if known.entries(key) or known.stored(key)), None
    )


def keys_serving(build: BuildInputs) -> Iterator[str]:
    """Yields the keys of all engines that could serve a wanted one, the best first."""
    yield build.key
    if not is_portable(build.toolchain.kind):  # others are built for one architecture
        return
    more = sorted(set(served_archs(build.toolchain.line)) - set(build.archs))
    for count in range(1, len(more) + 1):
        for others in combinations(more, count):
            archs = tuple(sorted((*build.archs, *others)))
            yield build.model_copy(update={"archs": archs}).key
