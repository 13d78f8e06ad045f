"""Candidates: what builders propose to publish, until the publisher signs or refuses it."""

from __future__ import annotations

from collections.abc import Callable

from zoo.repository.files import RecordFiles
from zoo.schema.index import Candidate
from zoo.schema.layout import record_key
from zoo.schema.records import BuildRecord
from zoo.stores.base import ObjectStore
from zoo.util.digest import canonical_json
from zoo.util.errors import RepositoryError

SignCandidate = Callable[[Candidate], Candidate]
"""Signs a candidate as a builder."""


class Candidates:
    """The candidates of a repository.

    Args:
        store: The repository's store.

    Attributes:
        sign: Signs what this machine proposes, as its builder; None to leave it unsigned.
    """

    sign: SignCandidate | None = None

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._files = RecordFiles(store)

    def signed(self, candidate: Candidate) -> Candidate:
        """Returns a candidate as this machine proposes it."""
        return candidate if self.sign is None else self.sign(candidate)

    def propose(self, candidate: Candidate) -> str:
        """Signs and stores a candidate, and returns its key.

        Raises:
            RepositoryError: A record that it names is not stored.
        """
        model = candidate.card.model
        for key in candidate.records:
            if self._files.read(record_key(model, key), BuildRecord) is None:
                raise RepositoryError(
                    f"{self._store.url}: the candidate of {model} names {record_key(model, key)}, "
                    "which is not stored",
                    hint="store the build records before the candidate that names them",
                )
        candidate = self.signed(candidate)
        key = f"candidates/{model}/{candidate.name}"
        self._store.put(key, candidate.to_json(), if_absent=True)
        return key

    def waiting(self) -> list[str]:
        """Returns the keys of the candidates, grouped by model, oldest first."""
        return [entry.key for entry in self._store.list("candidates/")]

    def read(self, key: str) -> Candidate | None:
        """Returns a candidate, None if it no longer exists."""
        return self._files.read(key, Candidate)

    def refuse(self, key: str, reason: str) -> None:
        """Records under ``refused/`` why a candidate was not published."""
        data = canonical_json({"candidate": key, "reason": reason}) + b"\n"
        self._store.put(key.replace("candidates/", "refused/", 1), data)
