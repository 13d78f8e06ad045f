"""Object stores, which hold the files of repositories.

:class:`~zoo.stores.base.ObjectStore` is the whole interface; :func:`open_store` picks one by URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from zoo.stores.base import Abandoned, Entry, ObjectStore, Progress
from zoo.stores.local import LocalStore
from zoo.stores.memory import MemoryStore
from zoo.util.errors import MissingPackageError, RepositoryError
from zoo.util.names import perhaps

__all__ = [
    "SCHEMES",
    "Abandoned",
    "Entry",
    "LocalStore",
    "MemoryStore",
    "ObjectStore",
    "Progress",
    "Scheme",
    "credentials_of",
    "download_command",
    "extra_of",
    "folder_of",
    "open_store",
]

_CURL = "curl -fL -o {target} {source}"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """The stores that URLs of a scheme name.

    Attributes:
        form: How such a URL is written, for hints; None if users have no use for the store.
        opens: Opens the store of a URL, given what follows ``://`` and whether to be anonymous.
        writable: Whether a repository can be written there.
        download: Shell command that copies the object at ``{source}`` to ``{target}`` without this
            package; None if there is none.
        folder: Returns the local folder of such a URL, given what follows ``://``; None if the
            stores are not folders.
        credentials: Start of the names of the environment variables that hold the credentials of
            such a store; None if it needs none.
        extra: The extra of this package that such a store needs; None if it needs none.
    """

    form: str | None
    opens: Callable[[str, bool], ObjectStore]
    writable: bool
    download: str | None
    folder: Callable[[str], Path] | None = None
    credentials: str | None = None
    extra: str | None = None


def _folder_of_file(rest: str) -> Path:
    return Path(unquote(rest.removeprefix("localhost")))


def _open_s3(rest: str, anonymous: bool) -> ObjectStore:
    try:
        from zoo.stores.s3.connect import open_s3
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"s3://{rest}: boto3 is not installed", hint="pip install 'caft-zoo[s3]'"
        ) from error
    bucket, _, prefix = rest.partition("/")
    return open_s3(bucket, prefix, anonymous=anonymous)


def _open_http(url: str) -> ObjectStore:
    from zoo.stores.http import HttpStore

    return HttpStore(url)


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "file": Scheme(
            form="file:///path",
            opens=lambda rest, _: LocalStore(_folder_of_file(rest)),
            writable=True,
            download=_CURL,
            folder=_folder_of_file,
        ),
        "s3": Scheme(
            form="s3://bucket/prefix",
            opens=_open_s3,
            writable=True,
            download="aws s3 cp {source} {target}",
            credentials="AWS_",
            extra="s3",
        ),
        "https": Scheme(
            form="https://host/path",
            opens=lambda rest, _: _open_http(f"https://{rest}"),
            writable=False,
            download=_CURL,
        ),
        "http": Scheme(
            form="http://host/path",
            opens=lambda rest, _: _open_http(f"http://{rest}"),
            writable=False,
            download=_CURL,
        ),
        "memory": Scheme(form=None, opens=lambda *_: MemoryStore(), writable=True, download=None),
    }
)
"""The stores by the scheme of their URLs. A text without a scheme is the path of a directory."""


def open_store(url: str, *, anonymous: bool = False) -> ObjectStore:
    """Opens the store that ``url`` names.

    Args:
        url: The path of a directory, or a URL of one of :data:`SCHEMES`.
        anonymous: Whether to ask an S3 server without credentials.

    Raises:
        RepositoryError: No store is known for the URL's scheme, or it names none.
        MissingPackageError: boto3, for ``s3://``.
    """
    name, colon, rest = url.partition("://")
    if not url.strip():
        raise RepositoryError(
            "the name of the repository is empty",
            hint=f"a repository is a directory, {_forms(writable=True)} or, only to read, "
            f"{_forms(writable=False)}",
        )
    if not colon:
        return LocalStore(Path(url))
    if scheme := SCHEMES.get(name.lower()):
        return scheme.opens(rest, anonymous)
    raise RepositoryError(
        f"{url}: no store for '{name.lower()}://' URLs.{perhaps(name.lower(), SCHEMES)}",
        hint=f"a repository is a directory, {_forms(writable=True)} or, only to read, "
        f"{_forms(writable=False)} (docs/reference/stores.md)",
    )


def _forms(*, writable: bool) -> str:
    schemes = (scheme for scheme in SCHEMES.values() if scheme.writable == writable)
    return ", ".join(scheme.form for scheme in schemes if scheme.form)


def download_command(url: str) -> str | None:
    """Returns the shell command that copies an object of a store without this package.

    Args:
        url: The store's address: the path of a directory, or a URL.

    Returns:
        A format with ``{source}`` and ``{target}``; None if there is no such command.
    """
    if "://" not in url:
        return "cp {source} {target}"
    scheme = _scheme_of(url)
    return scheme.download if scheme else None


def folder_of(url: str) -> Path | None:
    """Returns the local folder that a store is; None if it is elsewhere."""
    _, colon, rest = url.partition("://")
    if not colon:
        return Path(url)
    scheme = _scheme_of(url)
    return scheme.folder(rest) if scheme and scheme.folder else None


def credentials_of(url: str) -> str | None:
    """Returns how the names of variables with a store's credentials start; None if it needs none.

    Args:
        url: The store's address: the path of a directory, or a URL.
    """
    scheme = _scheme_of(url)
    return scheme.credentials if scheme else None


def extra_of(url: str) -> str | None:
    """Returns the extra of this package that a store needs; None if it needs none.

    Args:
        url: The store's address: the path of a directory, or a URL.
    """
    scheme = _scheme_of(url)
    return scheme.extra if scheme else None


def _scheme_of(url: str) -> Scheme | None:
    name, colon, _ = url.partition("://")
    return SCHEMES.get(name.lower()) if colon else None
