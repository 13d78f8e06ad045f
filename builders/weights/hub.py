"""Weights from a Hugging Face hub: fetched by their hash, and what the hub states about them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builders.weights import hub_errors
from builders.weights.hub_errors import NotThereError
from builders.weights.locks import NAME
from builders.weights.standing import digest_words, what_now
from zoo.schema.manifest import UNLOCKED, HubWeights
from zoo.util.digest import sha256_file
from zoo.util.errors import MissingPackageError, WeightsError
from zoo.util.files import make_way

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

NEWEST = "main"
"""The branch whose tip is the newest revision."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECONDS = 30


def fetch(model: str, weights: HubWeights) -> Path:
    """Downloads a file through huggingface_hub's cache and checks its hash and size.

    A cached file that is damaged is downloaded again. ``HF_ENDPOINT``, ``HF_HOME`` and
    ``HF_HUB_OFFLINE`` are respected. Where the revision is not locked, those that public files
    record are tried, then the newest: the hash alone decides which file is used.

    Args:
        model: Manifest id, for messages.
        weights: Weights whose hash is known.

    Returns:
        The file in the hub's cache.

    Raises:
        WeightsError: The hub can't be reached, has no such file or revision, or the file's hash
            differs from the locked one; such a file does not stay in the cache. Or the hash is the
            locked one and the stated size is not the file's.
    """
    _client()
    if (cached := _cached(model, weights)) is not None:
        return cached
    missing: NotThereError | None = None
    other: WeightsError | None = None
    for revision in _candidates(weights):
        where = _where(weights, revision)
        try:
            announced = _announced(model, weights, revision)
            if announced not in (None, weights.sha256):
                other = other or _other(model, where, f"sha256 {announced}", weights)
                continue
            path = _download(model, weights, revision)
        except NotThereError as error:
            missing = missing or error
            continue
        _check(model, where, path, weights)
        return path
    raise other or missing or AssertionError("there is always a revision to try")


def commit_of(path: Path) -> str:
    """Returns the commit of a file in the hub's cache, whose folders are named after commits."""
    return path.parent.name


def _candidates(weights: HubWeights) -> Iterator[str]:
    if weights.revision != UNLOCKED:
        yield weights.revision
        return
    yield from weights.recorded_revisions
    yield NEWEST


def _cached(model: str, weights: HubWeights) -> Path | None:
    """Returns the file in the cache; None if it is not there, and a damaged one no longer is."""
    from huggingface_hub import try_to_load_from_cache

    for revision in _candidates(weights):
        found = try_to_load_from_cache(weights.repository, weights.file, revision=revision)
        if not isinstance(found, str):
            continue
        path = Path(found)
        digest = sha256_file(path)
        if digest == weights.sha256:
            _check_size(model, _where(weights, revision), path, weights)
            return path
        if path.resolve().name != digest:  # the cache names files by their hash
            damage = _described(path, digest)
            where = _where(weights, revision)
            print(f"{model}: {where}: the cached file {damage}; downloading it again")
            _remove(path)
    return None


def _announced(model: str, weights: HubWeights, revision: str) -> str | None:
    """Returns the hash that the hub announces for a file; None if it does not.

    Asked first, so that a large file with another hash is not downloaded in vain.

    Raises:
        NotThereError: The hub has no such revision or file.
        UnreachableError: There is no connection to it.
    """
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(weights.repository, weights.file, revision=revision)
    try:
        etag = _metadata(url).etag
    except Exception as error:  # its class depends on the HTTP library
        if hub_errors.is_offline(error):  # the download would try again for 23 s
            raise hub_errors.unreachable(model, _where(weights, revision)) from error
        explained = hub_errors.of_question(model, _where(weights, revision), error)
        if isinstance(explained, NotThereError):
            raise explained from error
        return None  # the download fails for the same reason, or finds the file elsewhere
    return etag if etag and _SHA256.fullmatch(etag) else None


def _metadata(url: str) -> HfFileMetadata:
    """Asks the hub about a file, three times within 3 s if there is no connection."""
    from huggingface_hub import get_hf_file_metadata

    for pause_s in (1, 2):
        try:
            return get_hf_file_metadata(url)
        except Exception as error:  # its class depends on the HTTP library
            if not hub_errors.is_offline(error):
                raise
            time.sleep(pause_s)
    return get_hf_file_metadata(url)


def _download(model: str, weights: HubWeights, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(weights.repository, weights.file, revision=revision))
        if path.is_file():
            return path
        _remove(path)  # the client returns whatever stands there, such as a folder
        return Path(hf_hub_download(weights.repository, weights.file, revision=revision))
    except Exception as error:  # an interrupted download has a class of the HTTP library
        raise hub_errors.of_download(model, _where(weights, revision), error) from error


def _check(model: str, where: str, path: Path, weights: HubWeights) -> None:
    digest = sha256_file(path)
    if digest == weights.sha256:
        _check_size(model, where, path, weights)
        return
    described = _described(path, digest).removeprefix("has ")
    _remove(path)
    raise _other(model, where, described, weights)


def _check_size(model: str, where: str, path: Path, weights: HubWeights) -> None:
    """Raises WeightsError if a file with the locked hash has another size than the stated one."""
    size = path.stat().st_size
    if weights.size in (UNLOCKED, size):
        return
    raise WeightsError(
        f"{model}: {where} has the locked sha256 and {size} bytes; the stated size, "
        f"{weights.size} bytes, is wrong",
        hint=f"correct weights.size in {model}.toml to {size}; if {NAME} states it, "
        f"make lock UPGRADE={model} corrects it there",
    )


def _other(model: str, where: str, described: str, weights: HubWeights) -> WeightsError:
    size = "" if weights.size == UNLOCKED else f" of {weights.size} bytes"
    return WeightsError(
        f"{model}: {where} has {described}; locked is {weights.sha256}{size}, "
        f"which {digest_words(weights)}",
        hint=what_now(model, weights),
    )


def _described(path: Path, digest: str) -> str:
    return f"has {path.stat().st_size} bytes and sha256 {digest}"


def _where(weights: HubWeights, revision: str) -> str:
    return f"{weights.repository}@{revision[:12]} {weights.file}"


def _remove(path: Path) -> None:
    for place in (path.resolve(), path):  # the blob that the path in a snapshot links to
        make_way(place)
        place.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the hub states about a file.

    Attributes:
        revision: Commit of the repository.
        sha256: Hash of the file.
        size: Its bytes.
        repository: The repository's present name.
    """

    revision: str
    sha256: str
    size: int
    repository: str


def look_up(model: str, weights: HubWeights, revision: str | None = None) -> Stated:
    """Asks the hub for hash and size of a file.

    Args:
        model: Manifest id, for messages.
        weights: The repository and the file in it.
        revision: A commit; None for the newest.

    Raises:
        NotThereError: The hub lacks the repository, the revision or the file.
        UnreachableError: The hub can't be reached.
        WeightsError: It is no hub, or refuses access.
    """
    _client()
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    at = f"@{revision[:12]}" if revision else ""
    where = f"{weights.repository}{at}"
    try:
        info = HfApi().model_info(
            weights.repository, revision=revision, files_metadata=True, timeout=_SECONDS
        )
        if info.gated:  # anyone may read what a gated repository holds, not the files themselves
            url = hf_hub_url(weights.repository, weights.file, revision=info.sha)
            get_hf_file_metadata(url, timeout=_SECONDS)
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises
        raise hub_errors.of_question(model, where, error) from error
    for sibling in info.siblings or []:
        if sibling.rfilename == weights.file and sibling.lfs is not None and info.sha is not None:
            return Stated(
                revision=info.sha, sha256=sibling.lfs.sha256, size=sibling.lfs.size,
                repository=info.id,
            )  # fmt: skip
    held = [s.rfilename for s in info.siblings or [] if s.rfilename.endswith(".safetensors")]
    raise NotThereError(
        f"{model}: {where} has no {weights.file} with a known hash",
        hint=f"it holds {', '.join(held[:5])}: see weights.file"
        if held
        else "it holds no safetensors, and pickles are not read from a hub",
    )


def _client() -> None:
    """Raises MissingPackageError if the hub's client is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "huggingface_hub is not installed", hint="pip install -e '.[farm]' -c constraints.txt"
        ) from error
