"""A kNN on the rows of a cache: exact, and reads the known rows once, some at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

_TEMPERATURE = 0.07
_QUERIES = 1024  # rows compared with a part of the known ones at a time


class Nearest:
    """The known rows that are most similar to each query, among those seen so far.

    Args:
        queries: The queries, ``(queries, feature_dim)``, of length 1.
        neighbours: How many known rows to keep for each.
    """

    def __init__(self, queries: Floats, neighbours: int) -> None:
        self._queries = queries
        self._similar = np.full((len(queries), neighbours), -np.inf, np.float32)
        self._classes = np.zeros((len(queries), neighbours), np.int64)

    def see(self, known: Floats, classes: Numbers) -> None:
        """Compares known rows of length 1, whose classes are given, with all queries."""
        for start in range(0, len(self._queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            similar = self._queries[part] @ known.T
            # After the first rows only few are more similar than those that are kept.
            worst = self._similar[part].min(axis=1, keepdims=True)
            found = np.flatnonzero(similar > worst)
            query, row = np.divmod(found, len(known))
            self._merge(part, query, similar.reshape(-1)[found], classes[row])

    def _merge(self, part: slice, query: Numbers, similar: Floats, classes: Numbers) -> None:
        """Keeps the most similar of those that were kept and others, sorted by their query."""
        kept, of_kept = self._similar[part], self._classes[part]
        rows, most = kept.shape
        counts = np.bincount(query, minlength=rows)
        place = most + np.arange(len(query)) - np.repeat(counts.cumsum() - counts, counts)
        width = most + int(counts.max(initial=0))
        values = np.full((rows, width), -np.inf, np.float32)
        numbers = np.zeros((rows, width), np.int64)
        values[:, :most], numbers[:, :most] = kept, of_kept
        values[query, place], numbers[query, place] = similar, classes
        best = np.argpartition(values, width - most, axis=1)[:, width - most :]
        kept[:] = np.take_along_axis(values, best, axis=1)
        of_kept[:] = np.take_along_axis(numbers, best, axis=1)

    def voted(self) -> Numbers:
        """Returns the class of each query: its neighbours' votes, weighted by similarity."""
        return _most_voted(self._classes, np.exp((self._similar - 1) / _TEMPERATURE))


def knn(known: Iterable[tuple[Floats, Numbers]], queries: Floats, *, neighbours: int) -> Numbers:
    """Classifies each row by its nearest neighbours, weighted by their similarity.

    Source: the weighted kNN of Z. Wu et al., "Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination" (2018), temperature 0.07, as DINO and its successors use it.

    Args:
        known: Parts of the known rows, ``(rows, feature_dim)``, of length 1, and their classes.
        queries: Rows to classify, ``(queries, feature_dim)``, of length 1.
        neighbours: k, at most the number of known rows.

    Returns:
        The classes of ``queries``, ``(queries,)``.
    """
    nearest = Nearest(queries, neighbours)
    for rows, classes in known:
        nearest.see(rows, classes)
    return nearest.voted()


def _most_voted(classes: Numbers, weights: npt.NDArray[np.floating[Any]]) -> Numbers:
    """Returns the class of each row with the largest sum of weights, the first of equals."""
    order = np.argsort(classes, axis=1, kind="stable")
    ordered = np.take_along_axis(classes, order, axis=1)
    votes = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    # Sums over runs of a class, added left to right as a table of all classes would be.
    for place in range(1, votes.shape[1]):
        votes[:, place] += np.where(
            ordered[:, place] == ordered[:, place - 1], votes[:, place - 1], 0
        )
    best = votes.argmax(axis=1)
    return np.asarray(ordered[np.arange(len(ordered)), best])
