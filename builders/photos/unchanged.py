"""Checks photos before use against the digests that records and keys name."""

from __future__ import annotations

from pathlib import Path

from zoo.util.digest import sha256_file
from zoo.util.errors import UsageError


def check_unchanged(path: Path, digest: str, purpose: str) -> None:
    """Checks that a photo is still the file that was hashed when the run began.

    Args:
        path: The photo.
        digest: Its SHA-256 then.
        purpose: What the photo is for, for messages.

    Raises:
        UsageError: It is missing, or another file by now.
    """
    try:
        actual = sha256_file(path)
    except OSError as error:
        raise changed(purpose, f"{path}: {error.strerror}") from error
    if actual != digest:
        raise changed(purpose, f"{path} has sha256 {actual}, which was {digest}")


def changed(purpose: str, what: str) -> UsageError:
    """Returns the error of photos that were changed during a run."""
    return UsageError(
        f"{purpose} photos were changed since the run began: {what}",
        hint="what is made of them would be stored under the digests of other photos: run the "
        "command again, and do not change the folder while it runs",
    )
