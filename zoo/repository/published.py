"""Reads what a plan needs of a model's index."""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError

from zoo.repository.files import RecordFiles
from zoo.repository.repository import Repository
from zoo.schema.index import IndexRow, ModelIndex
from zoo.schema.published import AnyModel, PublishedModel
from zoo.util.digest import sha256_bytes


def published_model(repository: Repository, row: IndexRow) -> AnyModel | None:
    """Returns what a plan needs of a model's index, None if it is missing.

    If the file is the one that ``index.json`` names, a publisher wrote it from a whole index, and
    few fields are read. Any other file is read and checked as a whole.

    Args:
        repository: The repository.
        row: The model's row in ``index.json``.

    Raises:
        RepositoryError: It is not a valid index.
    """
    key = f"index/{row.model}.json"
    data = repository.index_bytes(key)
    if data is not None and sha256_bytes(data) == row.index.sha256:
        with suppress(ValidationError):  # then the whole index says what is wrong, if anything
            return PublishedModel.model_validate_json(data)
    return RecordFiles(repository.store).parse(key, data, ModelIndex)
