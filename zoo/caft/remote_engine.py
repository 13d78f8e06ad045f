"""The engine of a pass over a cluster: workers run it, this process does not."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.runtime.base import Features, Images
from zoo.schema.records import BuildRecord
from zoo.util.errors import RunError


class RemoteSession:
    """The session of an engine that runs on workers, not in this process."""

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def features(self, images: Images) -> Features:
        """Refuses.

        Raises:
            RunError: Always.
        """
        raise RunError("this engine runs only on the workers of a cluster, in a feature pass")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Refuses; see :meth:`features`."""
        raise RunError("this engine runs only on the workers of a cluster, in a feature pass")

    def close(self) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a pass, where workers find it.

    Attributes:
        store: URL of the repository.
        anonymous: Whether a bucket is read without credentials.
        record: The engine's build record, whose signature was checked here.
    """

    store: str
    anonymous: bool
    record: BuildRecord
