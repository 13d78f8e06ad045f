"""JSON files that maintainers give to the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from zoo.util.errors import UsageError
from zoo.util.loading import read_regular

Model = TypeVar("Model", bound=BaseModel)


def read_document(path: Path, kind: type[Model], what: str, hint: str) -> Model:
    """Reads a file.

    Args:
        path: The file.
        kind: What it has to hold.
        what: What it then is not, for the error, such as "no result of a benchmark".
        hint: What to do about it.

    Raises:
        UsageError: It can't be read, or holds something else.
    """
    try:
        return kind.model_validate_json(read_regular(path))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{path} is {what}: {where}: {first['msg']}", hint=hint) from error
