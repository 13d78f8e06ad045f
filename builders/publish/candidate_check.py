"""Intake: looks at a candidate in a process of its own, and says what the index would become.

Whoever can write to the store can leave a candidate. Nothing that it says is taken as it stands:
records are named by what is in them, blobs are hashed, an engine's header is compared with its
record, a verdict with its numbers and the floors. Nothing is deserialised or run. The publisher
reads only the answer, and signs it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from builders.publish.index import model_index
from builders.publish.provenance import PROVENANCE, is_about
from builders.verify.metrics import find_misses
from zoo.repository.repository import LARGEST_RECORD, Repository
from zoo.runtime.header import check_engine
from zoo.schema.floors import OwnTolerance, Tolerance, looser_by
from zoo.schema.index import EngineEntry, ModelCard, ModelIndex
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
from zoo.schema.targets import Precision, Target
from zoo.stores import open_store
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, ZooError


def check_candidate(
    repository: Repository, key: str, previous: ModelIndex | None, now: datetime, kind: Kind
) -> ModelIndex:
    """Checks a candidate and says what the index of its model becomes with it.

    Args:
        repository: Where it and its records lie.
        key: Where the candidate lies.
        previous: The index of its model as it is signed now.
        now: The time.
        kind: What the repository is for.

    Raises:
        RepositoryError: It is not what it should be; says in what.
    """
    candidate = repository.candidate(key)
    if candidate is None:
        raise RepositoryError(f"{key} is gone")
    if key.split("/")[1:2] != [candidate.card.model]:
        raise RepositoryError(f"{key} is of another model, {candidate.card.model}")
    if kind == Kind.RELEASE:
        check_licence(candidate.card.model, candidate.card.licence)
    index = model_index(repository, candidate, previous, now)
    listed = {entry.record for entry in previous.engines} if previous else set()
    judged = _judged(index, previous)
    for name in dict.fromkeys(entry.record for entry in index.engines):
        record = repository.record(candidate.card.model, name)
        assert record is not None
        if problem := next(problems(repository, candidate.card, record, kind, judged), None):
            raise RepositoryError(f"record {name}: {problem}")
        if name not in listed:  # what is listed was looked at when it came in
            _check_blobs(repository, record)
            if problem := next(missing_papers(repository, record, kind), None):
                raise RepositoryError(f"record {name}: {problem}")
    return index


def _judged(index: ModelIndex, previous: ModelIndex | None) -> set[str]:
    """Returns the keys of the verdicts that must keep the floors of now.

    A verdict that a later one took the place of kept those of its time, and so did what is signed
    of an engine that is superseded.
    """

    def keys(entries: Iterable[EngineEntry]) -> set[str]:
        verdicts = (one.verification for one in entries if one.status == Status.VERIFIED)
        return {one.key for one in verdicts if one is not None and one.key is not None}

    known = keys(previous.engines) if previous else set()
    return keys(index.current) | (keys(index.engines) - known)


def problems(
    repository: Repository, card: ModelCard, record: BuildRecord, kind: Kind, judged: set[str]
) -> Iterator[str]:
    """Yields what is wrong with a record, its blobs' bytes aside.

    Args:
        repository: Where it lies.
        card: The model.
        record: An engine's.
        kind: What the repository is for.
        judged: Keys of the verdicts that must keep the floors.
    """
    inputs = record.inputs
    if inputs.model != card.model:
        yield f"it is of {inputs.model}"
    if record.dry_run != (kind == Kind.DRY_RUN):
        weights = "seeded" if record.dry_run else "real"
        yield f"its weights are {weights}: this is a {kind} repository"
    labels = {
        f"{arch}-{inputs.toolchain.line}-{inputs.precision}{mixed}"
        for arch in inputs.archs
        for mixed in ("", "-mixed")
    }
    for label in record.targets:
        if str(Target.parse(label)) not in labels:
            yield f"it says that it serves {label}, and was not built for that"
    if kind == Kind.RELEASE and record.licence not in allowed_licences():
        yield f"its weights are under '{record.licence}', which is not on the list of licences"
    for file in (*((LICENCE_FILE, NOTICE_FILE) if kind == Kind.RELEASE else ()), PROVENANCE):
        if file not in record.files:
            yield f"no {file} lies beside it"
    attestations = repository.attestations(record.engine.sha256)
    if not attestations:
        yield "nothing was attested about its engine"
    for attestation in attestations:
        if attestation.engine != record.engine.sha256:
            yield f"an attestation of it is about {attestation.engine}"
        if attestation.kind == AttestationKind.VERIFIED and attestation.key in judged:
            yield from _missed(card, inputs.precision, attestation)


def missing_papers(repository: Repository, record: BuildRecord, kind: Kind) -> Iterator[str]:
    """Yields which papers beside an engine are not its own, or not those of its weights."""
    if kind == Kind.RELEASE:
        text = licence_text(record.licence).encode()
        if record.files[LICENCE_FILE].sha256 != sha256_bytes(text):
            yield f"its {LICENCE_FILE} is not the text of {record.licence}"
    if not is_about(_paper(repository, record.files[PROVENANCE]), record):
        yield f"its {PROVENANCE} is not about this engine and its build key"


def _paper(repository: Repository, blob: Blob) -> bytes:
    return repository.store.get(blob_key(blob.sha256), limit=LARGEST_RECORD)


def _missed(card: ModelCard, precision: Precision, attestation: Attestation) -> Iterator[str]:
    """Yields where a verdict's numbers miss its own tolerance, or that the floors."""
    body = attestation.body
    if not isinstance(body, VerifiedBody) or not body.batches:
        yield "it is verified without a number"
        return
    try:
        tolerance = Tolerance.model_validate(body.tolerance)
        misses = [miss for row in body.batches for miss in find_misses(row, tolerance)]
    except (KeyError, TypeError, ValidationError) as error:
        yield f"it is verified by numbers that can't be read: {type(error).__name__}, {error}"
        return
    looser = looser_by(precision, OwnTolerance(**tolerance.model_dump()))
    if looser and precision not in card.own_floors:
        yield f"it was verified against floors below those of {precision}: {', '.join(looser)}"
    for miss in misses:
        yield f"it is verified, and at {miss}"


def _check_blobs(repository: Repository, record: BuildRecord) -> None:
    blobs: dict[str, Blob] = {"engine": record.engine, "golden": record.golden, **record.files}
    with tempfile.TemporaryDirectory() as scratch:
        for name, blob in blobs.items():
            if damage := repository.damage(blob, Path(scratch)):
                raise RepositoryError(f"record {record.key}: its {name} {blob.sha256} is {damage}")
        if has_header(record.inputs.toolchain.kind):
            engine = repository.blob_path(record.engine) or Path(scratch) / record.engine.sha256
            check_engine(engine, record.inputs, record.engine.size)


def main() -> int:
    """Reads a question (JSON) from standard input, writes the answer (JSON) to standard output."""
    question = json.load(sys.stdin)
    previous = question["previous"]
    try:
        index = check_candidate(
            Repository(open_store(question["store"])),
            question["candidate"],
            ModelIndex.model_validate(previous) if previous else None,
            datetime.fromtimestamp(question["now"], timezone.utc),
            question["kind"],
        )
        answer: dict[str, Any] = {"index": index.model_dump(mode="json")}
    except ZooError as error:
        answer = {"refused": str(error)}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
