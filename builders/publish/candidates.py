"""Proposes a run's results for the index, and has them signed if the keys are on this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from builders.publish import index
from zoo.repository.repository import Repository, SignAttestation
from zoo.schema.index import Candidate, ModelIndex
from zoo.util.errors import RepositoryError

if TYPE_CHECKING:
    from builders.publish.publisher import Published


class Proposals:
    """Writes candidates and has them signed.

    Args:
        repository: Where they are stored.
        publish: Signs the candidates; None if the keys are elsewhere, where ``zoo-farm publish``
            signs them.
        now: The clock.
        sign: Signs what this machine attests, as its builder; None to leave it unsigned.
    """

    def __init__(
        self,
        repository: Repository,
        publish: Callable[[], Published] | None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        sign: SignAttestation | None = None,
    ) -> None:
        self.sign = sign
        self._repository = repository
        self._publish = publish
        self._now = now
        self.waiting = 0
        """Number of candidates that wait for a signature."""

    @property
    def still_unsigned(self) -> str:
        """End of a sentence saying that candidates wait for a signature; empty if none do."""
        return "; it waits for a signature: zoo-farm publish" if self.waiting else ""

    def send(self, candidate: Candidate) -> ModelIndex | None:
        """Proposes a candidate unless it would not change the index.

        Returns:
            The index that it makes; None if that is the current one.

        Raises:
            RepositoryError: The publisher refuses it.
        """
        made = index.propose(self._repository, candidate, self._now)
        if made is not None:
            self._sign()
        return made

    def send_again(self, model: str) -> None:
        """Proposes a model's current index entries with the attestations added since."""
        if index.propose_again(self._repository, model, self._now):
            self._sign()

    def send_sharing(self, engines: Collection[str], but: str) -> list[str]:
        """Proposes the models again whose engines have the same bytes as those of another.

        What is attested about an engine is attested about its bytes.

        Args:
            engines: Digests of the engines.
            but: The model that was proposed already.

        Returns:
            Ids of the other models.
        """
        others = [
            index.model
            for index in self._repository.model_indexes()
            if index.model != but and any(e.engine.sha256 in engines for e in index.engines)
        ]
        for model in others:
            self.send_again(model)
        return others

    def _sign(self) -> None:
        if self._publish is None:
            self.waiting += 1
            return
        published = self._publish()
        for key, reason in published.refused.items():
            raise RepositoryError(f"{key} was not signed: {reason}")
