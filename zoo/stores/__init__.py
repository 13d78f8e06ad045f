"""Object stores, which hold the files of repositories.

:class:`~zoo.stores.base.ObjectStore` is the whole interface; :func:`open_store` picks one by URL.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from zoo.stores.base import Abandoned, Entry, ObjectStore, Progress
from zoo.stores.local import LocalStore
from zoo.stores.memory import MemoryStore
from zoo.util.errors import MissingPackageError, RepositoryError
from zoo.util.names import perhaps

__all__ = [
    "Abandoned",
    "Entry",
    "LocalStore",
    "MemoryStore",
    "ObjectStore",
    "Progress",
    "open_store",
]

_SCHEMES = ("file", "s3", "https", "http", "memory")


def open_store(url: str, *, anonymous: bool = False) -> ObjectStore:
    """Opens the store that ``url`` names.

    Args:
        url: A directory, as a path or ``file://`` URL; ``s3://bucket/prefix``; ``https://…`` to
            read only; ``memory://``, empty.
        anonymous: Whether to ask an S3 server without credentials.

    Raises:
        RepositoryError: No store is known for the URL's scheme, or it names none.
        MissingPackageError: boto3, for ``s3://``.
    """
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if not colon:
        return LocalStore(Path(url))
    if scheme == "file":
        return LocalStore(Path(unquote(rest.removeprefix("localhost"))))
    if scheme == "s3":
        return _open_s3(url, rest, anonymous)
    if scheme in ("http", "https"):
        from zoo.stores.http import HttpStore

        return HttpStore(url)
    if scheme == "memory":
        return MemoryStore()
    raise RepositoryError(
        f"{url}: no store for '{scheme}://' URLs.{perhaps(scheme, _SCHEMES)}",
        hint="a repository is a directory or file://, s3://bucket/prefix, or, to read from, "
        "https:// or http:// (docs/reference/stores.md)",
    )


def _open_s3(url: str, rest: str, anonymous: bool) -> ObjectStore:
    try:
        from zoo.stores.s3.connect import open_s3
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{url}: boto3 is not installed", hint="pip install 'caft-zoo[s3]'"
        ) from error
    bucket, _, prefix = rest.partition("/")
    return open_s3(bucket, prefix, anonymous=anonymous)
