"""Checks a candidate in a process of its own and returns the index that it would make.

Anybody who can write to the store can leave a candidate: unless a registered builder signed it, as
the newest that it proposed of the model, it is refused. Nor is anything in it trusted: record keys
are recomputed, blobs are hashed, engine headers are compared with their records, and verification
results with their numbers and the tolerances. No engine is deserialised or run. The publisher
reads only the answer, and signs it.

This module handles untrusted input, so it loads as little code as possible; the test of the house's
structure lists the rooms that it may import.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from builders.publish.builder_list import Builders
from builders.publish.corrections import store_documents
from builders.publish.index import model_index
from builders.publish.provenance_file import PROVENANCE, is_about
from builders.publish.signatures import TrustedRepository, with_candidate
from builders.verify.misses import find_misses
from zoo.repository.files import LARGEST_RECORD
from zoo.repository.repository import Repository
from zoo.runtime.header import check_engine
from zoo.schema.floors import OwnTolerance, Tolerance, looser_by
from zoo.schema.index import Candidate, EngineEntry, ModelCard, ModelIndex
from zoo.schema.layout import blob_key
from zoo.schema.licences import (
    LICENCE_FILE,
    NOTICE_FILE,
    allowed_licences,
    check_licence,
    licence_text,
)
from zoo.schema.measurements import VerifiedBody
from zoo.schema.records import Attestation, AttestationKind, Blob, BuildRecord, Kind, Status
from zoo.schema.runtimes import has_header
from zoo.schema.targets import Precision, Target, label_of
from zoo.stores import open_store
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, ZooError


class Question(BaseModel):
    """The publisher's message to this process, as JSON.

    Attributes:
        store: URL of the repository.
        candidate: The candidate's key.
        previous: The index of its model as signed now.
        now: The time, seconds since 1970.
        kind: What the repository is for.
        builders: The builders that it registers; None if it is from before there were builders.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    candidate: str
    previous: ModelIndex | None
    now: float
    kind: Kind
    builders: Builders | None


class Answer(BaseModel):
    """This process's message to the publisher, as JSON.

    Attributes:
        index: The index with the candidate applied; absent if it is refused.
        refused: Why it is refused; absent if it is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: ModelIndex | None = None
    refused: str | None = None


def check_candidate(
    repository: Repository,
    key: str,
    previous: ModelIndex | None,
    now: datetime,
    kind: Kind,
    builders: Builders | None,
) -> ModelIndex:
    """Checks a candidate and returns the index of its model with the candidate applied.

    LICENSE and NOTICE that replace those of records are stored: their text is this package's.

    Args:
        repository: Where the candidate and its records are stored.
        key: The candidate's key.
        previous: The index of its model as signed now.
        now: The time.
        kind: What the repository is for.
        builders: The builders that it registers; None if it is from before there were builders.

    Raises:
        RepositoryError: The candidate is refused; the message says why.
    """
    if builders is not None:
        repository = TrustedRepository(repository.store, builders, previous)
    candidate = repository.candidates.read(key)
    if candidate is None:
        raise RepositoryError(f"{key} is missing")
    if key.split("/")[1:2] != [candidate.card.model]:
        raise RepositoryError(f"{key} belongs to another model, {candidate.card.model}")
    proposals = previous.proposals if previous else {}
    if builders is not None:
        if key.rpartition("/")[2] != candidate.name:  # its name decides whose turn it is
            raise RepositoryError(f"{key} was renamed: it is {candidate.name}")
        proposals = with_candidate(proposals, candidate, builders)
    index = checked_index(repository, candidate, previous, now, kind)
    store_documents(repository, index)
    return index.model_copy(update={"proposals": proposals})


def checked_index(
    repository: Repository,
    candidate: Candidate,
    previous: ModelIndex | None,
    now: datetime,
    kind: Kind,
) -> ModelIndex:
    """Returns the index of a model with a candidate applied; nothing is stored.

    Args:
        repository: Where its records are stored.
        candidate: The candidate.
        previous: The index of its model as signed now.
        now: The time.
        kind: What the repository is for.

    Raises:
        LicenceError: The licence forbids publishing what the index would give out.
        RepositoryError: The candidate is refused; the message says why.
    """
    index = model_index(repository, candidate, previous, now)
    is_given_out = any(entry.status != Status.WITHDRAWN for entry in index.engines)
    if not kind.seeded and (is_given_out or not index.engines):
        check_licence(candidate.card.model, candidate.card.licence)
    listed = {(e.record, e.record_file.sha256) for e in previous.engines} if previous else set()
    current = _must_meet_tolerance(index, previous)
    for name, file in dict.fromkeys((e.record, e.record_file.sha256) for e in index.engines):
        record = repository.record(candidate.card.model, name)
        assert record is not None
        if problem := next(problems(repository, candidate.card, record, kind, current), None):
            raise RepositoryError(f"record {name}: {problem}")
        if (name, file) not in listed:  # the others were checked when they came in
            if isinstance(repository, TrustedRepository):
                repository.check_introduced(record, file)
            _check_blobs(repository, record)
            if problem := next(wrong_documents(repository, record, kind), None):
                raise RepositoryError(f"record {name}: {problem}")
    return index


def _must_meet_tolerance(index: ModelIndex, previous: ModelIndex | None) -> set[str]:
    """Returns the keys of the verifications that must meet today's tolerances.

    Verifications that were replaced, and those of superseded engines that are signed already, met
    the tolerances of their time.
    """

    def keys(entries: Iterable[EngineEntry]) -> set[str]:
        summaries = (entry.verification for entry in entries if entry.status == Status.VERIFIED)
        return {
            summary.key for summary in summaries if summary is not None and summary.key is not None
        }

    known = keys(previous.engines) if previous else set()
    return keys(index.current) | (keys(index.engines) - known)


def problems(
    repository: Repository, card: ModelCard, record: BuildRecord, kind: Kind, current: set[str]
) -> Iterator[str]:
    """Yields what is wrong with a record, apart from its blobs' bytes.

    Args:
        repository: Where it is stored.
        card: The model.
        record: The engine's record.
        kind: What the repository is for.
        current: Keys of the verifications that must meet today's tolerances.
    """
    yield from _wrong_inputs(card, record, kind)
    yield from _wrong_targets(record)
    yield from _wrong_files(record, kind)
    attestations = repository.attestations(record.engine.sha256)
    if not attestations:
        yield "its engine has no attestation that counts"
    for attestation in attestations:
        if attestation.engine != record.engine.sha256:
            yield f"one of its attestations is about {attestation.engine}"
        if attestation.kind == AttestationKind.VERIFIED and attestation.key in current:
            yield from _missed(card, record.inputs.precision, attestation)


def _wrong_inputs(card: ModelCard, record: BuildRecord, kind: Kind) -> Iterator[str]:
    if record.inputs.model != card.model:
        yield f"it belongs to {record.inputs.model}"
    if record.dry_run != kind.seeded:
        weights = "seeded" if record.dry_run else "real"
        yield f"its weights are {weights}: this is a {kind} repository"


def _wrong_targets(record: BuildRecord) -> Iterator[str]:
    inputs = record.inputs
    labels = {
        str(label_of([arch], inputs.toolchain.line, inputs.precision, mixed=mixed))
        for arch in inputs.archs
        for mixed in (False, True)
    }
    for label in record.targets:
        if str(Target.parse(label)) not in labels:
            yield f"it lists the target {label}, which it was not built for"


def _wrong_files(record: BuildRecord, kind: Kind) -> Iterator[str]:
    if not kind.seeded and record.licence not in allowed_licences():
        yield f"its weights are under '{record.licence}', which is not on the list of licences"
    for name in (*(() if kind.seeded else (LICENCE_FILE, NOTICE_FILE)), PROVENANCE):
        if name not in record.files:
            yield f"it has no {name} file"


def wrong_documents(repository: Repository, record: BuildRecord, kind: Kind) -> Iterator[str]:
    """Yields which documents beside an engine are not its own, or not those of its weights."""
    if not kind.seeded:
        text = licence_text(record.licence).encode()
        if record.files[LICENCE_FILE].sha256 != sha256_bytes(text):
            yield f"its {LICENCE_FILE} is not the text of {record.licence}"
    if not is_about(_document(repository, record.files[PROVENANCE]), record):
        yield f"its {PROVENANCE} is not about this engine and its build key"


def _document(repository: Repository, blob: Blob) -> bytes:
    return repository.store.get(blob_key(blob.sha256), limit=LARGEST_RECORD)


def _missed(card: ModelCard, precision: Precision, attestation: Attestation) -> Iterator[str]:
    """Yields where a verification misses its own tolerance, or its tolerance the minimum."""
    body = attestation.body
    if not isinstance(body, VerifiedBody) or not body.batches:
        yield "its verification has no numbers"
        return
    try:
        tolerance = Tolerance.model_validate(body.tolerance)
        misses = [miss for row in body.batches for miss in find_misses(row, tolerance)]
    except (KeyError, TypeError, ValidationError) as error:
        yield f"the numbers of its verification can't be read: {type(error).__name__}, {error}"
        return
    looser = looser_by(precision, OwnTolerance(**tolerance.model_dump()))
    if looser and precision not in card.own_floors:
        yield f"its tolerance is looser than that of {precision}: {', '.join(looser)}"
    for miss in misses:
        yield f"its verification misses the tolerance at {miss}"


def _check_blobs(repository: Repository, record: BuildRecord) -> None:
    blobs: dict[str, Blob] = {"engine": record.engine, "golden": record.golden, **record.files}
    with tempfile.TemporaryDirectory() as scratch:
        for name, blob in blobs.items():
            if damage := repository.blobs.damage(blob, Path(scratch)):
                raise RepositoryError(f"record {record.key}: its {name} {blob.sha256} is {damage}")
        if has_header(record.inputs.toolchain.kind):
            engine = repository.blobs.path(record.engine) or Path(scratch) / record.engine.sha256
            check_engine(engine, record.inputs, record.engine.size)


def main() -> int:
    """Reads a question (JSON) from standard input, writes the answer (JSON) to standard output."""
    question = Question.model_validate(json.load(sys.stdin))
    try:
        index = check_candidate(
            Repository(open_store(question.store)),
            question.candidate,
            question.previous,
            datetime.fromtimestamp(question.now, timezone.utc),
            question.kind,
            question.builders,
        )
        answer = Answer(index=index)
    except ZooError as error:
        answer = Answer(refused=str(error))
    # Not model_dump_json, which would write null for NaN.
    json.dump(answer.model_dump(mode="json", exclude_unset=True), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
