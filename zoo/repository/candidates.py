"""Candidates: what builders propose for the index, until the publisher signs or refuses it."""

from __future__ import annotations

from zoo.repository.record_files import RecordFiles
from zoo.schema.index import Candidate
from zoo.schema.layout import record_key
from zoo.schema.records import BuildRecord
from zoo.util.digest import canonical_json
from zoo.util.errors import RepositoryError


class Candidates(RecordFiles):
    """Writes and reads candidates."""

    def propose(self, candidate: Candidate) -> None:
        """Writes a candidate; its records must be here."""
        model = candidate.card.model
        for key in candidate.records:
            if self.read(record_key(model, key), BuildRecord) is None:
                raise RepositoryError(f"candidate of {model}: its record {key} is not stored")
        key = f"candidates/{model}/{candidate.name}"
        self.store.put(key, candidate.to_json(), if_absent=True)

    def candidates(self) -> list[str]:
        """Returns the keys of what builders propose, by model, the oldest first."""
        return [entry.key for entry in self.store.list("candidates/")]

    def candidate(self, key: str) -> Candidate | None:
        """Returns a candidate, None when it is gone."""
        return self.read(key, Candidate)

    def refuse(self, key: str, reason: str) -> None:
        """Puts a candidate aside, with the reason."""
        data = canonical_json({"candidate": key, "reason": reason}) + b"\n"
        self.store.put(key.replace("candidates/", "refused/", 1), data)
