"""A map of a feature cache: photos as points in a plane, similar ones near each other."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from zoo.caft.cache import FeatureCache
from zoo.caft.files import NO_LABEL
from zoo.caft.progress import Progress, unseen
from zoo.caft.report import new_figure, save_figure
from zoo.caft.rows import chunk_of, read_rows
from zoo.util.errors import CacheError, MissingPackageError, UsageError
from zoo.util.files import write_whole
from zoo.util.names import counted
from zoo.util.shown import Shown
from zoo.util.strenum import StrEnum

Floats = npt.NDArray[np.float32]

_FEWEST = 3
_QUERIES = 4096  # photos whose neighbours are found at a time
_COMPONENTS = 50  # that t-SNE starts from: more takes longer and shows the same
_FITTED = 128 << 20  # most bytes of features that the components are computed from
_COLOURS = (
    "#4363d8", "#e6194b", "#3cb44b", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324",
    "#808000", "#000075", "#00a2b8", "#800000",
)  # fmt: skip
_OTHER = "#9aa0a6"


class Method(StrEnum):
    """How photos are placed."""

    TSNE = "tsne"
    PCA = "pca"


@dataclass(frozen=True, kw_only=True, repr=False)
class Map(Shown):
    """Photos in a plane.

    Attributes:
        points: Their places, ``(photos, 2)``.
        names: Their names.
        labels: Number of each one's class in ``classes``; -1 for those without a label.
        classes: Names of the classes.
        title: What is shown.
    """

    points: npt.NDArray[np.float32]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    title: str

    def _facts(self) -> dict[str, str]:
        return {"shows": self.title, "classes": f"{len(self.classes):,}"}

    @property
    def groups(self) -> list[tuple[str, str, npt.NDArray[np.int64]]]:
        """Name, colour and photos of the largest classes, then of all others together."""
        counts = np.bincount(self.labels[self.labels != NO_LABEL], minlength=len(self.classes))
        largest = [int(n) for n in np.argsort(-counts, kind="stable")[: len(_COLOURS)] if counts[n]]
        found = [
            (self.classes[number], colour, np.flatnonzero(self.labels == number))
            for number, colour in zip(largest, _COLOURS, strict=False)
        ]
        rest = np.flatnonzero(~np.isin(self.labels, largest))
        unlabelled = bool(len(rest)) and bool((self.labels[rest] == NO_LABEL).all())
        name = "no label" if unlabelled else "other classes"
        return found + ([(name, _OTHER, rest)] if len(rest) else [])


def make_map(
    cache: FeatureCache, method: Method, *, most: int, seed: int, progress: Progress = unseen
) -> Map:
    """Places photos in a plane by the features of their plain views.

    Args:
        cache: The cache.
        method: How.
        most: Most photos; of more, a random sample is taken.
        seed: Random seed of the sample, of PCA and of t-SNE.
        progress: Shows how far it is.

    Raises:
        UsageError: ``most`` is below three, or the seed negative.
        CacheError: There are fewer than three photos.
        HeadError: Features are not finite numbers.
        MissingPackageError: scikit-learn is not installed.
    """
    if most < _FEWEST or not 0 <= seed < 2**32:
        raise UsageError(
            f"a map of {most} photos with seed {seed}: {_FEWEST} photos are the fewest, and a seed "
            f"is from 0 to {2**32 - 1}"
        )
    total = len(cache.labels)
    if total < _FEWEST:
        raise CacheError(f"{cache.folder}: a map needs at least {_FEWEST} images, it has {total}")
    _check_scikit_learn()
    samples = np.sort(np.random.default_rng(seed).permutation(total)[:most])
    points = _placed(cache, samples, method, seed, progress)
    wanted = set(samples.tolist())
    shown = (
        f"{len(samples):,} of {total:,} photos" if len(samples) < total else counted(total, "photo")
    )
    return Map(
        points=points,
        names=tuple(name for number, name in enumerate(cache.names()) if number in wanted),
        labels=np.asarray(cache.labels[samples]),
        classes=cache.label_names,
        title=f"{shown}, {cache.identity.model}, {_TITLES[method]}",
    )


_TITLES = {Method.TSNE: "t-SNE", Method.PCA: "PCA"}


def draw_map(made: Map, path: Path) -> None:
    """Writes a map as PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_figure(9, 7)
    axes = figure.subplots()
    size = max(2.0, min(24.0, 20_000 / len(made.names)))
    for name, colour, photos in made.groups:
        own = made.points[photos]
        axes.scatter(own[:, 0], own[:, 1], s=size, c=colour, label=_short(name), linewidths=0)
    axes.set(title=made.title, xticks=[], yticks=[])
    figure.legend(loc="outside right upper", fontsize=8, markerscale=(30 / size) ** 0.5)
    save_figure(figure, path)


def write_map(made: Map, path: Path) -> None:
    """Writes a map as one HTML page, which needs no network and shows a photo's name."""
    data = {
        "title": made.title,
        "points": np.round(made.points, 3).reshape(-1).tolist(),
        "names": made.names,
        "labels": made.labels.tolist(),
        "classes": made.classes,
        "groups": [[name, colour, photos.tolist()] for name, colour, photos in made.groups],
    }
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    page = files("zoo.caft").joinpath("map.html").read_text(encoding="utf-8")
    write_whole(path, page.replace("MAP_DATA", text).encode())


def _placed(
    cache: FeatureCache,
    samples: npt.NDArray[np.int64],
    method: Method,
    seed: int,
    progress: Progress,
) -> Floats:
    rows = _components(cache, samples, 2 if method is Method.PCA else _COMPONENTS, seed, progress)
    match method:
        case Method.PCA:
            return np.asarray(rows, np.float32)
        case Method.TSNE:
            return _tsne(rows, seed, progress)
        case _:
            assert_never(method)


def _components(
    cache: FeatureCache, samples: npt.NDArray[np.int64], width: int, seed: int, progress: Progress
) -> Floats:
    """Returns the first principal components of samples, at least two."""
    from sklearn.decomposition import PCA

    features = cache.identity.feature_dim
    components = min(width, features, len(samples))
    random = np.random.default_rng(seed)
    fitted = np.sort(random.permutation(samples)[: max(components, _FITTED // (4 * features))])
    solver = "randomized" if components < min(features, len(fitted)) else "full"
    step = chunk_of(features)
    placed = []
    with progress("PCA", "photo", len(samples)) as done:
        pca = PCA(components, svd_solver=solver, random_state=seed)
        pca.fit(read_rows(cache, fitted * cache.views))
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            placed.append(pca.transform(read_rows(cache, part * cache.views)))
            done(len(part))
    rows = np.concatenate(placed)
    return np.pad(rows, ((0, 0), (0, max(0, 2 - components))))


def _tsne(rows: Floats, seed: int, progress: Progress) -> Floats:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(rows) - 1) / 3)
    start = rows[:, :2] / max(float(rows[:, 0].std()), 1e-12) * 1e-4  # as init="pca" does
    tsne = TSNE(
        2,
        perplexity=perplexity,
        init=start,
        random_state=seed,
        metric="precomputed",
        verbose=2,  # a line for some iterations, which is all it tells about them
    )
    near = _distances(rows, min(len(rows) - 1, int(3 * perplexity + 1)), progress)
    with progress("t-SNE", "iteration", tsne.max_iter) as done, redirect_stdout(_Reports(done)):
        return np.asarray(tsne.fit_transform(near), np.float32)


def _distances(rows: Floats, neighbours: int, progress: Progress) -> Any:
    """Returns the sparse distances of rows to their nearest ones, as t-SNE itself computes them.

    It would in one call, which Ctrl-C does not end.
    """
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=neighbours + 1).fit(rows)  # each is the nearest to itself
    parts = []
    with progress("neighbours", "photo", len(rows)) as done:
        for first in range(0, len(rows), _QUERIES):
            part = rows[first : first + _QUERIES]
            parts.append(index.kneighbors_graph(part, mode="distance"))
            done(len(part))
    return sparse.vstack(parts, format="csr")


class _Reports(io.TextIOBase):
    """Takes what t-SNE prints, and counts its iterations.

    Args:
        done: Called with a number of iterations.
    """

    def __init__(self, done: Callable[[int], object]) -> None:
        self._done = done
        self._last = 0

    def write(self, text: str) -> int:
        """Reads a line such as ``[t-SNE] Iteration 50: error = …``."""
        if found := re.match(r"\[t-SNE\] Iteration (\d+): error", text):
            self._done(int(found[1]) - self._last)
            self._last = int(found[1])
        return len(text)


def _short(name: str) -> str:
    name = name.lstrip("_") or "_"  # matplotlib leaves names with an underscore out of legends
    return (name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$")


def _check_scikit_learn() -> None:
    if find_spec("sklearn") is None:
        raise MissingPackageError(
            "scikit-learn is not installed", hint="pip install 'caft-zoo[caft]'"
        )
