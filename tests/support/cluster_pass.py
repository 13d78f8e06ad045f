"""A cluster of two workers for feature passes, with a repository that they read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builders.executors.dask.certificates import make_certs
from support.caft import photo
from support.dask_cluster import Cluster
from support.toy_repository import ToyRepository, toy_repository
from zoo.caft.workers import Workforce, open_workforce
from zoo.inference.extractor import Extractor, load

ODD_PHOTOS = Path(__file__).parent / "odd_photos"


@dataclass
class Place:
    """A repository, and a cluster whose workers treat odd photos oddly.

    Attributes:
        said: What the last workforce told the user.
    """

    folder: Path
    repository: ToyRepository
    cluster: Cluster
    said: list[str] = field(default_factory=list)

    @contextmanager
    def workers(self, patience: float = 60) -> Iterator[tuple[Workforce, Extractor]]:
        """The workers, and the engine that they run."""
        self.said.clear()
        cluster = self.cluster
        with open_workforce(
            cluster.address, cluster.certs, say=self.said.append, patience=patience
        ) as workforce:
            yield workforce, workforce.choose("toy", self.repository.client())

    def here(self) -> Extractor:
        """The same engine in this process."""
        return load("toy", client=self.repository.client(), report=lambda text: None)


@contextmanager
def place(folder: Path, *workers: tuple[str, ...]) -> Iterator[Place]:
    """Starts a cluster; each tuple has the options of a ``zoo-farm cluster worker``."""
    repository, _ = toy_repository(folder / "repository")
    make_certs(folder / "certs")
    changed = {"ZOO_HOME": str(folder / "home"), "PYTHONPATH": str(ODD_PHOTOS)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with Cluster(folder, folder / "certs") as cluster:
            for options in workers:
                cluster.work(*options)
            yield Place(folder, repository, cluster)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def odd(path: Path, act: str, marker: Path | None = None) -> Path:
    """Makes a photo do something on a worker: once if there is a marker, else each time."""
    photo(hash(path.name) % 1000).save(path)
    with path.open("ab") as file:
        file.write(f"ODD {act} {marker or '-'}".encode())
    return path
