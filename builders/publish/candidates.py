"""Proposals: what a run found out is proposed for the index, and signed where the keys are here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from builders.publish import index
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate
from zoo.util.errors import RepositoryError

if TYPE_CHECKING:
    from builders.publish.publisher import Published


class Proposals:
    """Takes candidates.

    Args:
        repository: Where they go.
        publish: Signs what is proposed; None where the keys are somewhere else, and whoever has
            them runs ``zoo-farm publish``.
        now: The clock.
    """

    def __init__(
        self,
        repository: Repository,
        publish: Callable[[], Published] | None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._repository = repository
        self._publish = publish
        self._now = now
        self.waiting = 0
        """How many were proposed and wait for a signature."""

    @property
    def still_unsigned(self) -> str:
        """Says that something waits, for the end of a sentence; empty where nothing does."""
        return "; it waits for a signature: zoo-farm publish" if self.waiting else ""

    def send(self, candidate: Candidate) -> None:
        """Proposes a candidate, unless the index says it already.

        Raises:
            RepositoryError: The publisher refuses it.
        """
        if index.propose(self._repository, candidate, self._now()):
            self._sign()

    def send_again(self, model: str) -> None:
        """Proposes what the index has of a model, with what was attested since."""
        if index.propose_again(self._repository, model, self._now()):
            self._sign()

    def _sign(self) -> None:
        if self._publish is None:
            self.waiting += 1
            return
        published = self._publish()
        for key, reason in published.refused.items():
            raise RepositoryError(f"{key} was not signed: {reason}")
