"""Settings of a repository, in ``repository.json``: not signed, and not used by readers."""

from __future__ import annotations

from zoo.repository.repository import Repository
from zoo.schema.records import RepositoryInfo
from zoo.util.errors import RepositoryError


def has_chunks(repository: Repository) -> bool:
    """Whether the publisher also stores engines as chunks."""
    info = repository.read("repository.json", RepositoryInfo)
    return info is not None and info.chunks


def set_chunks(repository: Repository, wanted: bool) -> None:
    """Sets whether the publisher also stores engines as chunks.

    Raises:
        RepositoryError: There is no repository.
    """
    info = repository.read("repository.json", RepositoryInfo)
    if info is None:
        raise RepositoryError(
            f"{repository.store.url}: there is no repository here",
            hint="create one with make zoo",
        )
    if info.chunks != wanted:
        info = info.model_copy(update={"chunks": wanted})
        repository.store.put("repository.json", info.to_json())
