"""Publishes candidates: checks what builders proposed and signs the index.

It runs where the keys are, in one process at a time, under the store's lock. Each candidate is
checked in its own process (:mod:`builders.publish.candidate_check`). Candidates that pass are
signed, which makes them visible; the others are refused, and the reason is stored.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from builders.publish.builder_list import Builders
from builders.publish.candidate_check import Answer, Question
from builders.publish.changes import changes
from builders.publish.chunking import in_chunks, must_be_able, restore_whole
from builders.publish.corrections import signed_by
from builders.publish.index import without_aged
from builders.publish.keys import Role
from builders.publish.registered import read_builders
from builders.publish.rerun import rerun_apart
from builders.publish.tuf_metadata import SignedMetadata
from builders.toolchains.worker_environment import worker_environment
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.closed import Unknown
from zoo.schema.index import Index, IndexRow, ModelIndex, index_row
from zoo.schema.records import Kind
from zoo.util.causes import end_of
from zoo.util.errors import JobError, MissingPackageError, RepositoryError, ZooError
from zoo.util.loading import parse_json

Check = Callable[[Repository, str, ModelIndex | None, datetime, Kind, Builders | None], ModelIndex]
"""The signature of :func:`builders.publish.candidate_check.check_candidate`."""

Rerun = Callable[[Repository, ModelIndex, ModelIndex | None], None]
"""The signature of :func:`builders.publish.rerun.rerun_apart`."""

SOON = timedelta(days=60)
"""Time before the expiry of an offline key's signature at which a warning is shown."""


@dataclass
class Published:
    """The result of a run.

    Attributes:
        models: Models whose index was re-signed.
        changes: Sentences on corrected facts and on engines that have another status than before.
        refused: Reason for refusing each refused candidate.
        ending: Expiry of the roles whose signatures expire within :data:`SOON`.
        trusts_everybody: Whether the repository registers no builders, as before there were any.
    """

    models: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    ending: dict[Role, datetime] = field(default_factory=dict)
    trusts_everybody: bool = False


def check_apart(
    repository: Repository,
    key: str,
    previous: ModelIndex | None,
    now: datetime,
    kind: Kind,
    builders: Builders | None,
) -> ModelIndex:
    """Runs :func:`builders.publish.candidate_check.check_candidate` in its own process.

    Raises:
        RepositoryError: The candidate is refused.
        JobError: The process died, or its answer can't be parsed.
    """
    question = Question(
        store=repository.store.url,
        candidate=key,
        previous=previous,
        now=now.timestamp(),
        kind=kind,
        builders=builders,
    )
    done = subprocess.run(
        [sys.executable, "-m", "builders.publish.candidate_check"],
        input=json.dumps(question.model_dump(mode="json")),
        capture_output=True, text=True, check=False,
        env=worker_environment(repository.store.url, weights=False),
    )  # fmt: skip
    if done.returncode:
        last = end_of(done.stderr, "no message")
        raise JobError(f"{key}: its check failed ({done.returncode}): {last}")
    try:
        answer = Answer.model_validate(parse_json(done.stdout))
    except ValueError as error:
        raise JobError(f"{key}: the result of its check can't be parsed: {error}") from error
    if answer.refused is not None:
        raise RepositoryError(answer.refused)
    if answer.index is None:
        raise JobError(f"{key}: its check returned no index")
    return answer.index


class Publisher:
    """Signs the candidates of a repository.

    Args:
        repository: The repository.
        metadata: Signs the index.
        check: Checks a candidate.
        rerun: Runs the CPU engines that a candidate would have signed.
        now: Returns the time.
    """

    def __init__(
        self,
        repository: Repository,
        metadata: SignedMetadata,
        *,
        check: Check = check_apart,
        rerun: Rerun = rerun_apart,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._repository = repository
        self._metadata = metadata
        self._check = check
        self._rerun = rerun
        self._now = now

    def run(self, *, refresh: bool = False, chunking: Chunking | None = None) -> Published:
        """Signs every candidate that passes.

        Args:
            refresh: Whether to re-sign the timestamp even if nothing is new, and to remove
                expired superseded engines from the index of every model.
            chunking: How to store engines from now on, those of every model included; None for
                the candidates' models as it was decided before.

        Raises:
            TrustError: The metadata differs from what these keys signed last.
            MissingPackageError: A CPU engine can't be run here, or the repository has chunks and
                the extra ``chunks`` is not installed; nothing was signed.
            RepositoryError: What was stored as chunks only can't be restored; nothing was signed.
        """
        repository, published = self._repository, Published()
        with repository.store.lock("publish"):
            kind = repository.kind()
            if kind is None:
                raise RepositoryError(
                    f"{repository.store.url}: there is no repository here",
                    hint="create one with make zoo",
                )
            if not self._metadata.load():
                self._metadata.start()
            before = self._index(kind)
            chunks = self._decided(before, chunking)
            signer = self._metadata.root.signed.roles["timestamp"].keyids[0]
            builders = read_builders(self._metadata.targets.signed)
            published.trusts_everybody = builders is None
            rows = {row.model: row for row in before.models}
            keys = repository.candidates.waiting()
            files: dict[str, bytes] = {}
            for key in keys:
                model = key.split("/")[1]
                path = f"index/{model}.json"
                data = files.get(path) or self._metadata.read(path)
                previous = ModelIndex.model_validate_json(data) if data else None
                try:
                    made = self._examined(key, previous, kind, builders)
                except MissingPackageError:
                    raise  # not the candidate's fault: it waits
                except ZooError as error:
                    published.refused[key] = str(error)
                    repository.candidates.refuse(key, str(error))
                    continue
                made = signed_by(in_chunks(repository, made, chunks), previous, signer)
                files[path] = made.to_json()
                rows[model] = index_row(made, files[path])
                published.models.append(model)
                published.changes += changes(previous, made) if previous else ()
            for name in sorted(rows) if refresh else ():
                self._change(name, files, rows, published, self._without_aged)
            for name in sorted(rows) if chunking is not None else ():
                self._change(
                    name, files, rows, published, lambda made: in_chunks(repository, made, chunks)
                )
            models = tuple(rows[name] for name in sorted(rows))
            index = Index(kind=kind, models=models, chunks=chunks)
            files["index.json"] = index.to_json()
            if not self._metadata.publish(files) and refresh:
                self._metadata.refresh()
            self._write_plain(index)
            for key in keys:
                repository.store.delete(key)
            soon = self._now() + SOON
            expiries = self._metadata.expiries().items()
            published.ending |= {role: until for role, until in expiries if until < soon}
        return published

    def _examined(
        self, key: str, previous: ModelIndex | None, kind: Kind, builders: Builders | None
    ) -> ModelIndex:
        """Returns the index that a candidate makes.

        Raises:
            ZooError: It does not pass.
        """
        made = self._check(self._repository, key, previous, self._now(), kind, builders)
        if made.model != key.split("/")[1]:
            raise RepositoryError(f"its check returned the index of {made.model}")
        self._rerun(self._repository, made, previous)
        return made

    def _change(
        self,
        model: str,
        files: dict[str, bytes],
        rows: dict[str, IndexRow],
        published: Published,
        change: Callable[[ModelIndex], ModelIndex],
    ) -> None:
        """Signs a model's index again if a change makes a difference."""
        path = f"index/{model}.json"
        data = files.get(path) or self._metadata.read(path)
        if data is None:
            return
        before = ModelIndex.model_validate_json(data)
        made = change(before)
        if made != before:
            files[path] = made.to_json()
            rows[model] = index_row(made, files[path])
            published.models.append(model)

    def _without_aged(self, index: ModelIndex) -> ModelIndex:
        return without_aged(index, self._now())

    def _decided(self, signed: Index, wanted: Chunking | None) -> Chunking:
        """Returns how engines are stored, and prepares for it.

        Raises:
            MissingPackageError: The extra ``chunks`` is not installed.
            RepositoryError: A later version decided it, or an engine can't be restored.
        """
        chunking = wanted or signed.chunks
        if isinstance(chunking, Unknown):
            raise RepositoryError(
                f"{self._repository.store.url}: engines are stored in a way ('{chunking}') that "
                "this version of caft-zoo does not know",
                hint="upgrade it, or choose another: zoo-farm chunks on|off|only",
            )
        if chunking is not Chunking.OFF:
            must_be_able(self._repository)
        if wanted in (Chunking.ON, Chunking.OFF):  # before an index says that all are whole
            restore_whole(self._repository)
        return chunking

    def _index(self, kind: Kind) -> Index:
        data = self._metadata.read("index.json")
        return Index.model_validate_json(data) if data else Index(kind=kind, models=())

    def _write_plain(self, index: Index) -> None:
        """Updates the unsigned copies of the index, which are for people and scripts."""
        store, current = self._repository.store, self._repository.plain_index()
        known = {row.model: row.index for row in current.models} if current else {}
        for row in index.models:
            if known.get(row.model) != row.index:
                data = self._metadata.read(f"index/{row.model}.json")
                assert data is not None
                store.put(f"index/{row.model}.json", data)
        if index != current:
            store.put("index.json", index.to_json())
