"""All errors of this project, with the exit codes of the command lines.

An error's message says what is wrong and where, and its ``hint`` what to do next. Only the two
command lines, ``zoo`` and ``zoo-farm``, catch these errors.
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
    """Command that reproduces the error, if there is one."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UsageError(ZooError):
    """An invalid argument or option; the message lists valid ones."""

    exit_code = 2


class ManifestError(ZooError):
    """A manifest is invalid."""

    exit_code = 3


class UnlockedError(ZooError):
    """Weights have no locked revision or hash."""

    exit_code = 4


class WeightsError(ZooError):
    """Weights can't be downloaded, or don't match the manifest."""

    exit_code = 5


class ExportError(ZooError):
    """A backbone can't be exported, or its export does not match the manifest."""

    exit_code = 6


class BuildError(ZooError):
    """An engine can't be built, or does not match its build inputs."""

    exit_code = 7


class VerificationError(ZooError):
    """An engine's features do not match PyTorch's."""

    exit_code = 8


class MissError(VerificationError):
    """An engine was verified now and does not meet its tolerance."""


class TargetError(ZooError):
    """A target is not supported by any backend."""

    exit_code = 9


class RepositoryError(ZooError):
    """A repository is missing, damaged or of the wrong kind, or can't be reached."""

    exit_code = 10


class TooLongError(RepositoryError):
    """An object exceeds its maximum length and was not read to the end."""


class NoRangesError(RepositoryError):
    """A server sends whole objects only, not ranges of them."""


class SelectionError(ZooError):
    """No published engine fits the machine; the message gives the reason for each."""

    exit_code = 11


class RunError(ZooError):
    """An engine can't be loaded or run on this machine, or its input is invalid."""

    exit_code = 12


class MissingPackageError(ZooError):
    """An optional package is not installed; the hint is the command that installs it."""

    exit_code = 13


class JobError(ZooError):
    """A job failed in its worker process; the message is the worker's."""

    exit_code = 14


class NotRunError(JobError):
    """A job failed because of the machine, a package or the store, not because of the engine."""


class QuarantineError(JobError):
    """A job that several worker processes died of: it is not tried again as it is."""


class DatasetError(ZooError):
    """Images or labels can't be used as a data set."""

    exit_code = 30


class CacheError(ZooError):
    """A feature cache is missing, unfinished, damaged or of another engine."""

    exit_code = 31


class HeadError(ZooError):
    """A head can't be trained, read or used with this engine."""

    exit_code = 32


class PrecisionError(ZooError):
    """No engine of a precision meets the tolerance of a model.

    Args:
        message: The reason.
        advice: Numbers of what was tried, stored with the reason.
        stricter_may_pass: Whether an export that uses up less of the tolerance may meet it.
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
    """A repository is not trusted, its signatures are not valid, or it was tampered with."""

    exit_code = 16


class LicenceError(ZooError):
    """The licence of weights does not allow publishing engines."""

    exit_code = 17


class ClusterError(ZooError):
    """A cluster can't be reached, was lost, or has no suitable worker."""

    exit_code = 18


class RegressionError(ZooError):
    """Engines of a nightly run are slower or less accurate than earlier ones."""

    exit_code = 19


class SetbackError(Exception):
    """A repository can't be reached or has expired; files verified earlier remain usable."""

    def __init__(self, cause: TrustError | RepositoryError) -> None:
        super().__init__(str(cause))
        self.cause = cause
