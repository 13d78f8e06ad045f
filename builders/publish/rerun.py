"""Runs CPU engines again before they are signed, in a process that holds no keys."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from builders.jobs.onnx_check import run_apart
from builders.verify.rerun import CHILD, Rerun
from zoo.repository.repository import Repository
from zoo.schema.floors import Tolerance, floors
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import BuildRecord, Status
from zoo.schema.runtimes import has_header
from zoo.util.errors import JobError, RepositoryError


def rerun_apart(repository: Repository, made: ModelIndex, previous: ModelIndex | None) -> None:
    """Loads the CPU engines that an index lists, and runs those that it calls verified.

    Those that the signed index states already, from the same record and verification, were run
    when they came in: the signed index remembers it, which nobody can change without its keys. An
    engine for processors of another architecture is loaded, not run.

    Args:
        repository: Where the engines are stored.
        made: The index.
        previous: The index that is signed now.

    Raises:
        RepositoryError: One can't be loaded, or misses its tolerance.
    """
    known = {_stated(entry) for entry in previous.engines} if previous else set()
    for entry in _new(made, known):
        record = repository.listed_record(made.model, entry)
        with tempfile.TemporaryDirectory() as scratch:
            engine, golden = Path(scratch) / "engine", Path(scratch) / "golden"
            # Copies, so that what is run is what was hashed.
            repository.blobs.fetch(record.engine, engine)
            repository.blobs.fetch(record.golden, golden)
            job = Rerun(
                engine=engine, golden=golden, inputs=record.inputs,
                tolerance=_tolerance(entry, record),
            )  # fmt: skip
            try:
                run_apart(CHILD, text=job.model_dump_json())
            except JobError as error:
                raise RepositoryError(
                    f"record {entry.record}: its engine was not signed: {error.message}"
                ) from error


def _new(made: ModelIndex, known: set[tuple[str, ...]]) -> Iterator[EngineEntry]:
    """Yields the CPU engines of an index that were not run before, each once."""
    for entry in made.engines:
        stated = _stated(entry)
        if has_header(entry.toolchain.kind) or entry.status is Status.WITHDRAWN or stated in known:
            continue
        known.add(stated)
        yield entry


def _stated(entry: EngineEntry) -> tuple[str, ...]:
    verification = entry.verification if entry.status is Status.VERIFIED else None
    key = (verification.key if verification else None) or ""
    return entry.record, entry.record_file.sha256, entry.status, key


def _tolerance(entry: EngineEntry, record: BuildRecord) -> Tolerance | None:
    """Returns the tolerance that an engine must meet here; None if it is only loaded."""
    if entry.status is not Status.VERIFIED or record.inputs.toolchain.machine != platform.machine():
        return None
    stated = (entry.verification.model_extra or {}) if entry.verification else {}
    try:
        return Tolerance.model_validate(stated.get("tolerance"))
    except ValidationError:  # of a superseded engine from the time before tolerances were stated
        return floors()[record.inputs.precision]
