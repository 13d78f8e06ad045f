"""Photos of a cache that are similar to others, or nearly the same, by the cosine of features.

Everything is exact and reads the cache some rows at a time. Near-duplicates are found without
comparing all features of all pairs: a distance between projections onto a few orthonormal
directions is never larger than the distance itself, so pairs that are far apart there need no
second look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.cache import FeatureCache
from zoo.caft.files import NO_LABEL
from zoo.caft.rows import chunk_of, read_rows
from zoo.util.errors import MissingPackageError

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

_DIRECTIONS = 64  # of the projection
_SAMPLED = 1024  # rows that determine them
_BLOCK = 2048  # rows compared with as many others at a time
_PAIRS = 1 << 14  # of two blocks; if more are close in the projection, all are compared at once
_SLACK = 1e-4  # of squared distances, which are at most 4: more than float32 rounds


@dataclass(frozen=True, kw_only=True)
class Similar:
    """A photo of a cache that is similar to another.

    Attributes:
        name: Its name.
        label: Its class; None if it has none.
        similarity: Cosine of the two photos' features, -1 to 1.
    """

    name: str
    label: str | None
    similarity: float


def most_similar(cache: FeatureCache, queries: Floats, count: int) -> list[list[Similar]]:
    """Returns the photos of a cache that are most similar to others, best first.

    Args:
        cache: The cache; the plain views are compared.
        queries: Features of the others, ``(queries, feature_dim)``.
        count: Most photos for each.

    Raises:
        HeadError: Features of the cache are not finite numbers.
    """
    units = _units(queries)
    best = np.full((len(queries), 0), -2, np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start, part in _parts(cache):
        found = units @ part.T
        numbers = np.broadcast_to(np.arange(start, start + len(part)), found.shape)
        best, rows = np.hstack([best, found]), np.hstack([rows, numbers])
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    names = _names(cache, np.unique(rows))
    return [
        [_similar(cache, names, int(row), float(value)) for row, value in zip(*pair, strict=True)]
        for pair in zip(rows, best, strict=True)
    ]


def near_duplicates(
    cache: FeatureCache, at_least: float, on_compared: Callable[[int], object] = lambda photos: None
) -> list[list[Similar]]:
    """Returns groups of photos that are nearly the same, the largest first.

    Photos are in a group if a chain of pairs, each at least that similar, connects them. Features
    that are all zero are like no others.

    Args:
        cache: The cache; the plain views are compared.
        at_least: Cosine of a pair's features from which they are nearly the same.
        on_compared: Called with a number of photos that have been compared with all others.

    Returns:
        The photos of each group in the order of the cache, with their similarity to its first.

    Raises:
        HeadError: Features of the cache are not finite numbers.
        MissingPackageError: SciPy is not installed.
    """
    group = _groups(cache, at_least, on_compared)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    found = [samples for samples in members if len(samples) > 1]
    found.sort(key=lambda samples: (-len(samples), samples[0]))
    names = _names(cache, np.concatenate(found) if found else np.empty(0, np.int64))
    return [
        [
            _similar(cache, names, int(sample), value)
            for sample, value in _with_first(cache, samples)
        ]
        for samples in found
    ]


def _with_first(cache: FeatureCache, samples: Numbers) -> Iterator[tuple[int, float]]:
    """Yields the photos of a group with their similarity to the first."""
    first = _units(read_rows(cache, samples[:1] * cache.views))[0]
    step = chunk_of(cache.identity.feature_dim)
    for start in range(0, len(samples), step):
        part = samples[start : start + step]
        values = np.minimum(_units(read_rows(cache, part * cache.views)) @ first, 1)
        yield from zip(part.tolist(), values.tolist(), strict=True)


def _groups(cache: FeatureCache, at_least: float, on_compared: Callable[[int], object]) -> Numbers:
    """Returns the number of each photo's group, ``(samples,)``."""
    group = np.arange(len(cache.labels))
    far = 2 - 2 * at_least  # the squared distance of unit vectors with that cosine
    points = _projected(cache)
    order = np.argsort(points[:, 0], kind="stable")
    points = points[order]
    halves = -np.square(points).sum(axis=1, keepdims=True) / 2
    ones = np.ones_like(halves)
    left, right = np.hstack([points, halves, ones]), np.hstack([points, ones, halves])
    reach = np.sqrt(far + _SLACK)
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        last = points[block][-1, 0] + reach
        end = int(np.searchsorted(points[:, 0], last, side="right"))
        for other in range(start, end, _BLOCK):
            others = slice(other, min(other + _BLOCK, end))
            # Each number is minus half of a squared distance.
            near = left[block] @ right[others].T >= -(far + _SLACK) / 2
            near &= group[order[block]][:, None] != group[order[others]]  # nor a photo and itself
            few = np.count_nonzero(near) <= _PAIRS
            if not few:
                near &= _cosines(cache, order[block], order[others]) >= at_least - 1e-6
            first, second = np.nonzero(near)
            pairs = np.stack([order[start + first], order[other + second]], 1)
            if few:
                pairs = pairs[_are_near(cache, pairs, at_least)]
            if len(pairs):
                group = _joined(group, pairs)
        on_compared(len(points[block]))
    return group


def _cosines(cache: FeatureCache, samples: Numbers, others: Numbers) -> Floats:
    """Returns the cosines of photos with others, ``(samples, others)``."""
    first, second = (_units(read_rows(cache, rows * cache.views)) for rows in (samples, others))
    return np.asarray(first @ second.T, np.float32)


def _are_near(cache: FeatureCache, pairs: Numbers, at_least: float) -> npt.NDArray[np.bool_]:
    """Returns which pairs of photos are at least that similar."""
    near = np.zeros(len(pairs), np.bool_)
    step = max(1, chunk_of(cache.identity.feature_dim) // 2)
    for start in range(0, len(pairs), step):
        part = pairs[start : start + step] * cache.views
        first, second = _units(read_rows(cache, part[:, 0])), _units(read_rows(cache, part[:, 1]))
        near[start : start + step] = np.einsum("ij,ij->i", first, second) >= at_least - 1e-6
    return near


def _joined(group: Numbers, pairs: Numbers) -> Numbers:
    """Returns the groups after those of each pair were joined; each is named by its first photo."""
    sparse, csgraph = _scipy()
    ends = group[pairs]
    names, places = np.unique(ends, return_inverse=True)
    places = places.reshape(ends.shape)
    graph = sparse.coo_matrix(
        (np.ones(len(ends), np.bool_), (places[:, 0], places[:, 1])), shape=(len(names),) * 2
    )
    _, part = csgraph.connected_components(graph, directed=False)
    first = np.full(part.max(initial=-1) + 1, len(group))
    np.minimum.at(first, part, names)
    renamed = np.arange(len(group))
    renamed[names] = first[part]
    return np.asarray(renamed[group])


def _projected(cache: FeatureCache) -> Floats:
    """Returns unit features in a few orthonormal directions, ``(samples, directions)``.

    Rows of zeros are put far away from all others and from each other.
    """
    directions, mean = _directions(cache)
    points = np.empty((len(cache.labels), directions.shape[1]), np.float32)
    for start, part in _parts(cache):
        place = points[start : start + len(part)]
        place[:] = (part - mean) @ directions
        empty = np.flatnonzero(~part.any(axis=1))
        place[empty, 0] = 100 + 10 * (start + empty)
    return points


def _directions(cache: FeatureCache) -> tuple[Floats, Floats]:
    """Returns the directions in which a sample of the rows differs most, and their mean."""
    samples = np.random.default_rng(0).permutation(len(cache.labels))[:_SAMPLED]
    rows = _units(read_rows(cache, np.sort(samples) * cache.views))
    mean = rows.mean(axis=0)
    _, vectors = np.linalg.eigh((rows - mean) @ (rows - mean).T)
    most = vectors[:, ::-1][:, : min(_DIRECTIONS, cache.identity.feature_dim)]
    orthonormal, _ = np.linalg.qr((rows - mean).T @ most)
    return np.asarray(orthonormal, np.float32), mean


def _parts(cache: FeatureCache) -> Iterator[tuple[int, Floats]]:
    """Yields the unit features of the plain views, some rows at a time, with the first's number."""
    step = min(_BLOCK, chunk_of(cache.identity.feature_dim))
    for start in range(0, len(cache.labels), step):
        samples = np.arange(start, min(start + step, len(cache.labels)))
        yield start, _units(read_rows(cache, samples * cache.views))


def _units(rows: Floats) -> Floats:
    """Returns rows scaled to a length of 1; rows of zeros remain."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    scaled = rows / np.where(largest > 0, largest, 1)  # squares of large ones would overflow
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(scaled / np.where(lengths > 0, lengths, 1), np.float32)


def _names(cache: FeatureCache, samples: Numbers) -> dict[int, str]:
    wanted = set(samples.reshape(-1).tolist())
    return {number: name for number, name in enumerate(cache.names()) if number in wanted}


def _similar(cache: FeatureCache, names: dict[int, str], sample: int, value: float) -> Similar:
    label = int(cache.labels[sample])
    return Similar(
        name=names[sample],
        label=None if label == NO_LABEL else cache.label_names[label],
        similarity=value,
    )


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import sparse
        from scipy.sparse import csgraph
    except ImportError as error:
        raise MissingPackageError(
            "SciPy is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    return sparse, csgraph
