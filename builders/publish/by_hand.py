"""Withdraws and reinstates engines by hand: for every model whose engines have the same bytes.

An attestation about an engine is about its bytes, and whatever is signed next states it. So what
would be refused is checked before a decision is stored, and one that could not be signed is deleted
again: a command that failed must not take effect with a later run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timezone

from builders.publish.candidate_check import checked_index
from builders.publish.candidates import Proposals
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, ModelIndex
from zoo.schema.licences import check_licence
from zoo.schema.records import Attestation
from zoo.util.errors import LicenceError


def sharing(repository: Repository, engines: Collection[str]) -> list[ModelIndex]:
    """Returns the indexes of all models that list one of these engines.

    Args:
        repository: The repository.
        engines: Digests of the engines.
    """
    return [
        index
        for index in repository.model_indexes()
        if any(entry.engine.sha256 in engines for entry in index.engines)
    ]


def check_licences(repository: Repository, engine: str) -> None:
    """Checks that every model with this engine may be published.

    Models whose engines have the same bytes have the same weights: if the licence of one forbids
    publishing, the engine stays withdrawn for all.

    Raises:
        LicenceError: The licence of one of them forbids it.
    """
    kind = repository.kind()
    for index in sharing(repository, [engine]) if kind is not None and not kind.seeded else ():
        try:
            check_licence(index.model, index.licence)
        except LicenceError as error:
            raise LicenceError(
                f"nothing was reinstated: {error.message}",
                hint="if the manifest states another licence by now, first sign it: "
                f"make zoo MODELS={index.model}",
            ) from error


def check_decision(repository: Repository, decision: Attestation) -> None:
    """Checks that the publisher will sign a decision, for every model with that engine.

    Args:
        repository: The repository, where the decision is not stored yet.
        decision: The decision.

    Raises:
        RepositoryError: The index of one of these models would be refused with it.
        LicenceError: The licence of one of them forbids publishing.
    """
    kind, foreseen = repository.kind(), _Foreseen(repository, decision)
    assert kind is not None
    for index in sharing(repository, [decision.engine]):
        candidate = Candidate(card=index.card)
        checked_index(foreseen, candidate, index, datetime.now(timezone.utc), kind)


def have_signed(
    repository: Repository,
    proposals: Proposals,
    candidate: Candidate,
    decisions: Sequence[Attestation],
) -> list[str]:
    """Stores decisions on engines of a model, and proposes all models that have these engines.

    Args:
        repository: Where the decisions are stored.
        proposals: Takes candidates for the index.
        candidate: That of the model.
        decisions: The decisions.

    Returns:
        Ids of the other models.

    Raises:
        ZooError: They can't be signed; they are deleted again unless some index states them.
    """
    engines = {decision.engine for decision in decisions}
    plain = Repository(repository.store)  # as last written, whatever a client has read before
    before = sharing(plain, engines)
    keys = [repository.attest(decision) for decision in decisions]
    try:
        proposals.send(candidate)
        return proposals.send_sharing(engines, candidate.card.model) if engines else []
    except BaseException:
        if sharing(plain, engines) == before:
            for key in keys:
                repository.store.delete(key)
        raise


class _Foreseen(Repository):
    """A repository as it will be once an attestation is stored."""

    def __init__(self, repository: Repository, attestation: Attestation) -> None:
        super().__init__(repository.store)
        self._attestation = attestation

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns the attestations of an engine, oldest first."""
        stored = super().attestations(engine)
        return [*stored, self._attestation] if engine == self._attestation.engine else stored
