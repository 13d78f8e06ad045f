"""What a hub's refusals mean, and which command helps."""

from __future__ import annotations

import re

from zoo.util.causes import cause_of
from zoo.util.errors import WeightsError

_DRY_RUN = "for a dry run without a hub: WEIGHTS=seeded"
_LOGIN = ".venv/bin/hf auth login"
_COMMIT = re.compile(r"[0-9a-f]{12}")  # as messages shorten them
_LOGIN_OF_URL = re.compile(r"://[^/@\s]+@")


class NotThereError(WeightsError):
    """The hub was asked, and has no such repository, revision or file."""


class UnreachableError(WeightsError):
    """The hub did not answer, or may not be asked."""


def of_download(model: str, where: str, error: Exception) -> WeightsError:
    """Returns what a failed download means.

    Args:
        model: Manifest id.
        where: Repository, revision and file.
        error: The error of the hub's client, or of its HTTP library, whose classes vary.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    if (answer := _answer(model, where, error)) is not None:
        return answer
    if isinstance(error, (LocalEntryNotFoundError, ConnectionError)):
        return unreachable(model, where)
    return WeightsError(
        f"{model}: {where}: the download did not complete: {_cause(error)}",
        hint=f"try again; {_DRY_RUN}",
    )


def unreachable(model: str, where: str) -> UnreachableError:
    """Returns what it means that there is no connection; see :func:`of_download`."""
    return UnreachableError(
        f"{model}: {where}: the hub can't be reached and the file is not in the cache",
        hint=f"check the network, HF_ENDPOINT and HF_HUB_OFFLINE; {_DRY_RUN}",
    )


def is_offline(error: BaseException | None) -> bool:
    """Whether an error of the HTTP library comes from a connection that the system refused."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:  # the hub's own have no number
            return not isinstance(error, TimeoutError)
        error = error.__cause__ or error.__context__
    return False


def of_question(model: str, where: str, error: Exception) -> WeightsError:
    """Returns what it means that a question to the hub failed; see :func:`of_download`."""
    if (answer := _answer(model, where, error)) is not None:
        return answer
    return UnreachableError(
        f"{model}: {where}: the hub can't be reached: {_cause(error)}",
        hint="locking needs the network; check HF_ENDPOINT and HF_HUB_OFFLINE; " + _DRY_RUN,
    )


def _answer(model: str, where: str, error: Exception) -> WeightsError | None:
    """Returns what the hub's answer means; None if there was none."""
    from huggingface_hub import errors

    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        cause, (errors.HfHubHTTPError, errors.FileMetadataError)
    ):
        error = cause  # what the client found before it looked into its cache
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(model, where, error)
    if isinstance(error, (errors.FileMetadataError, ValueError, TypeError, KeyError)):
        return WeightsError(
            f"{model}: {where}: the server is not a Hugging Face hub: {_cause(error)}",
            hint=f"check HF_ENDPOINT and the proxy; {_DRY_RUN}",
        )
    return None


def _refused(model: str, where: str, error: Exception) -> WeightsError:
    """Returns what a status means. Without a token, a hub answers 401 for what it does not have."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    status = error.response.status_code if error.response is not None else 0
    repository = where.partition("@")[0].split()[0]
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return WeightsError(
            f"{model}: {where}: the hub answers {status}: it is gated, and you have no access yet",
            hint=f"accept its terms on {_page(repository)}, then {_LOGIN} (or set HF_TOKEN)",
        )
    if status == 401:
        return NotThereError(
            f"{model}: {where}: the hub answers 401: no such repository, or a private or gated one",
            hint=f"correct weights.repository in {model}.toml; if you have access to it: {_LOGIN} "
            "(or set HF_TOKEN)",
        )
    if status == 404:
        return NotThereError(
            f"{model}: {where}: the hub answers 404: no such {_missing(error)}",
            hint=f"correct [weights] in {model}.toml; {_elsewhere(model, where)}{_DRY_RUN}",
        )
    return WeightsError(
        f"{model}: {where}: the hub answers {status or 'nothing'}",
        hint=f"try again later; {_DRY_RUN}",
    )


def _elsewhere(model: str, where: str) -> str:
    """Returns what helps if only the revision is missing; nothing if none was asked for."""
    revision = where.partition("@")[2].partition(" ")[0]
    if not _COMMIT.fullmatch(revision):
        return ""
    return (
        f"if manifests.lock states that revision, make lock UPGRADE={model} looks for the newest; "
    )


def _missing(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return "revision"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "file in it"
    return "repository, revision or file"


def _page(repository: str) -> str:
    return f"{endpoint()}/{repository}"


def endpoint() -> str:
    """Returns the address of the hub, without the user and password of a mirror."""
    from huggingface_hub import constants

    return _LOGIN_OF_URL.sub("://", constants.ENDPOINT)


def _cause(error: Exception) -> str:
    """Returns what an error says, without the user and password of a mirror."""
    return _LOGIN_OF_URL.sub("://", cause_of(error, 400))
