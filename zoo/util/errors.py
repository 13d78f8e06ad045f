"""Every error that a user can meet, each with the exit status of the command that raised it.

The text of an error says what is wrong and where; ``hint`` says what to do next. Library code
raises; only the two command lines (``zoo`` and ``zoo-farm``) catch.
"""

from __future__ import annotations

from typing import Any


class ZooError(Exception):
    """Base of all errors of this project.

    Args:
        message: What is wrong, and where.
        hint: What to do next, as a sentence or a command.
    """

    exit_code = 1

    command: str | None = None
    """What reproduces it, where something does."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UsageError(ZooError):
    """A value on the command line that does not exist; lists what does."""

    exit_code = 2


class ManifestError(ZooError):
    """A manifest that does not say what it must."""

    exit_code = 3


class UnlockedError(ZooError):
    """Weights whose revision or hash is not known, refused until they are locked."""

    exit_code = 4


class WeightsError(ZooError):
    """Weights that can't be had, or are not what the manifest says."""

    exit_code = 5


class ExportError(ZooError):
    """A backbone that does not export to what its manifest says."""

    exit_code = 6


class BuildError(ZooError):
    """An engine that does not build, or is not what was asked for."""

    exit_code = 7


class VerificationError(ZooError):
    """An engine whose features are not PyTorch's."""

    exit_code = 8


class MissError(VerificationError):
    """An engine that was proven now, and misses its tolerance."""


class TargetError(ZooError):
    """A target that no backend serves."""

    exit_code = 9


class RepositoryError(ZooError):
    """A repository that is missing, damaged, or of the wrong kind."""

    exit_code = 10


class TooLongError(RepositoryError):
    """An object that is longer than it may be; it was not read to its end."""


class SelectionError(ZooError):
    """No published engine fits this machine; says why for each."""

    exit_code = 11


class RunError(ZooError):
    """An engine that can't be loaded or run here, or input that it can't take."""

    exit_code = 12


class MissingPackageError(ZooError):
    """An optional package that is not installed; names the command that installs it."""

    exit_code = 13


class JobError(ZooError):
    """A job that failed in its worker process, with the cause that the worker gave."""

    exit_code = 14


class NotRunError(JobError):
    """A job that failed for want of a machine, a package or the store: not the engine's fault."""


class QuarantineError(JobError):
    """A job that several worker processes died of: it is not tried again as it is."""


class DatasetError(ZooError):
    """Images or labels that can't be used as a data set."""

    exit_code = 30


class CacheError(ZooError):
    """A feature cache that is missing, unfinished, damaged, or of another engine."""

    exit_code = 31


class HeadError(ZooError):
    """A head that can't be trained, read, or put on this engine."""

    exit_code = 32


class PrecisionError(ZooError):
    """A network has no engine of a precision that keeps its floors.

    Args:
        message: Why.
        advice: What was tried, with numbers; it is stored with the reason.
        stricter_may_pass: Whether a network that leaves more of the floors free may keep them.
    """

    exit_code = 15

    def __init__(
        self,
        message: str,
        advice: dict[str, Any] | None = None,
        *,
        stricter_may_pass: bool = False,
    ) -> None:
        super().__init__(message)
        self.advice = advice or {}
        self.stricter_may_pass = stricter_may_pass


class TrustError(ZooError):
    """A repository that nobody who is trusted vouches for, or that was tampered with."""

    exit_code = 16


class LicenceError(ZooError):
    """Weights whose licence does not allow to publish engines of them."""

    exit_code = 17


class ClusterError(ZooError):
    """A cluster that can't be reached, is lost, or has no worker for what is asked."""

    exit_code = 18


class RegressionError(ZooError):
    """Engines of this night that are slower, or farther from PyTorch, than those before them."""

    exit_code = 19


class SetbackError(Exception):
    """Keeps us from what is new, and not from what was verified: no network, or expired."""

    def __init__(self, cause: TrustError | RepositoryError) -> None:
        super().__init__(str(cause))
        self.cause = cause
