"""Weights from a Hugging Face hub: fetched at a pinned commit, and the command that pins it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.schema.manifest import HubWeights
from zoo.util.causes import cause_of
from zoo.util.digest import sha256_file
from zoo.util.errors import MissingPackageError, WeightsError

_DRY_RUN = "for a dry run without a hub: WEIGHTS=seeded"


def fetch(model: str, weights: HubWeights) -> Path:
    """Downloads a file through huggingface_hub's cache and checks its size and hash.

    A cached file that is damaged is downloaded again. ``HF_ENDPOINT``, ``HF_HOME`` and
    ``HF_HUB_OFFLINE`` are respected.

    Args:
        model: Manifest id, for messages.
        weights: Locked weights.

    Returns:
        The file in the hub's cache.

    Raises:
        WeightsError: The hub can't be reached, has no such file or revision, or the file's hash
            differs from the manifest's; such a file is removed from the cache.
    """
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise _missing() from error
    where = f"{weights.repository}@{weights.revision[:12]} {weights.file}"
    cached = try_to_load_from_cache(weights.repository, weights.file, revision=weights.revision)
    if isinstance(cached, str) and (damage := _damage(Path(cached), weights)):
        print(f"{model}: {where}: the cached file {damage}; downloading it again")
        _remove(Path(cached))
    try:
        path = Path(hf_hub_download(weights.repository, weights.file, revision=weights.revision))
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{model}: {where}: the hub can't be reached and the file is not in the cache",
            hint=f"check the network, HF_ENDPOINT and HF_HUB_OFFLINE; {_DRY_RUN}",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise WeightsError(
            f"{model}: {where}: the hub answers {status}: no such repository, revision or file, "
            "or no right to read it",
            hint=f".venv/bin/zoo-farm lock {model} looks the revision up again; {_DRY_RUN}",
        ) from error
    except Exception as error:  # an interrupted download; the class depends on the HTTP library
        raise WeightsError(
            f"{model}: {where}: the download did not complete: {cause_of(error)}",
            hint=f"try again; {_DRY_RUN}",
        ) from error
    _check(model, where, path, weights)
    return path


def _check(model: str, where: str, path: Path, weights: HubWeights) -> None:
    if (damage := _damage(path, weights)) is None:
        return
    _remove(path)
    raise WeightsError(
        f"{model}: {where} {damage}; the manifest says {weights.size} bytes and {weights.sha256}",
        hint="the file was removed from the cache; if it is the same after a retry, the hub serves "
        "a different file than the locked one: do not build from it",
    )


def _damage(path: Path, weights: HubWeights) -> str | None:
    """Describes a file that is not the locked one; None if it is."""
    size, digest = path.stat().st_size, sha256_file(path)
    if size == weights.size and digest == weights.sha256:
        return None
    return f"has {size} bytes and sha256 {digest}"


def _remove(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)  # the blob that the path in a snapshot links to
    path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The newest revision, hash and size (bytes) of a file on the hub."""

    revision: str
    sha256: str
    size: int


def look_up(model: str, weights: HubWeights) -> Lock:
    """Returns the newest commit of a hub repository with the hash and size of its file.

    Raises:
        WeightsError: The hub can't be reached, or lacks the repository or the file.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise _missing() from error
    try:
        info = HfApi().model_info(weights.repository, files_metadata=True, timeout=30)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise WeightsError(f"{model}: the hub answers {status} for {weights.repository}") from error
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises
        raise WeightsError(
            f"{model}: the hub can't be reached: {cause_of(error)}",
            hint="locking needs the network; check HF_ENDPOINT and HF_HUB_OFFLINE",
        ) from error
    for sibling in info.siblings or []:
        if sibling.rfilename == weights.file:
            if sibling.lfs is None or info.sha is None:
                break
            return Lock(revision=info.sha, sha256=sibling.lfs.sha256, size=sibling.lfs.size)
    raise WeightsError(
        f"{model}: {weights.repository} has no {weights.file} with a known hash",
        hint="does the repository hold safetensors under another name? See weights.file",
    )


def _missing() -> MissingPackageError:
    return MissingPackageError(
        "huggingface_hub is not installed", hint="pip install -e '.[farm]' -c constraints.txt"
    )
