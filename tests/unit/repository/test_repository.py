from __future__ import annotations

from pathlib import Path

import pytest
from support.goldens import raises_golden
from support.records import attestation, blob, sha256, state_record

from zoo.repository.repository import Repository
from zoo.schema.records import (
    Attestation,
    Blob,
    Record,
)
from zoo.schema.status import status_of
from zoo.stores import LocalStore, MemoryStore
from zoo.util.errors import RepositoryError


@pytest.fixture
def repository() -> Repository:
    return Repository(MemoryStore())


def add(repository: Repository, folder: Path, content: bytes) -> Blob:
    path = folder / "file"
    path.write_bytes(content)
    return repository.blobs.add(path)


def test_a_blob_is_named_by_its_bytes(repository: Repository, tmp_path: Path) -> None:
    blob = add(repository, tmp_path, b"engine")
    assert repository.blobs.has(blob)
    repository.blobs.fetch(blob, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"engine"


def test_a_damaged_blob_is_never_handed_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    repository = Repository(store)
    blob = add(repository, tmp_path, b"engine")
    (entry,) = store.list("blobs/")
    (tmp_path / "store" / entry.key).write_bytes(b"engin3")
    with raises_golden(RepositoryError, "repository/damaged-blob"):
        repository.blobs.fetch(blob, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


def test_a_missing_blob_is_an_error(repository: Repository, tmp_path: Path) -> None:
    with raises_golden(RepositoryError, "repository/missing-blob"):
        repository.blobs.fetch(blob(sha256=sha256("0"), size=1), tmp_path / "copy")


@pytest.mark.parametrize("is_local", [True, False])
def test_a_maintainer_is_told_how_a_damaged_blob_is_made_again(
    is_local: bool, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store") if is_local else MemoryStore()
    repository = Repository(store)
    blob = add(repository, tmp_path, b"onnx")
    (entry,) = store.list("blobs/")
    store.delete(entry.key)
    store.put(entry.key, b"0nnx")
    where = "local" if is_local else "remote"
    with raises_golden(RepositoryError, f"repository/blob-to-repair-{where}"):
        repository.blobs.whole(blob, tmp_path)


def test_a_record_needs_its_blobs(repository: Repository) -> None:
    record = state_record()
    with raises_golden(RepositoryError, "repository/record-without-blob"):
        repository.add_state(record)
    assert repository.state("m", "0" * 64) is None


def test_a_record_is_written_once(repository: Repository, tmp_path: Path) -> None:
    first = state_record(state=add(repository, tmp_path, b"1"))
    second = state_record(state=add(repository, tmp_path, b"2"))
    repository.add_state(first)
    repository.add_state(second)
    assert repository.state("m", "0" * 64) == first


def test_dry_runs_and_releases_do_not_mix(repository: Repository) -> None:
    assert repository.kind() is None
    repository.claim("release")
    repository.claim("release")
    with raises_golden(RepositoryError, "repository/other-kind", match="memory://"):
        repository.claim("dry-run")


def test_a_damaged_record_is_an_error_and_no_traceback(repository: Repository) -> None:
    repository.store.put("index.json", b'{"kind": "release"')
    with pytest.raises(RepositoryError, match=r"index\.json"):
        repository.index()


def test_a_newer_schema_asks_for_an_upgrade(repository: Repository) -> None:
    text = b'{"schema_version": 99, "kind": "release", "models": []}'
    repository.store.put("index.json", text)
    with raises_golden(RepositoryError, "repository/newer-schema", match="99"):
        repository.index()


def test_an_old_reader_keeps_fields_that_it_does_not_know() -> None:
    record = Record.model_validate_json(b'{"schema_version": 1, "from_the_future": [1]}')
    assert b"from_the_future" in record.to_json()


def test_a_status_follows_the_last_verdict() -> None:
    def found(kind: str, reason: str | None = None) -> Attestation:
        body = {"reason": reason} if reason else {}
        return attestation(kind, body=body)

    assert status_of([])[0] == "pending"
    pending, verified = found("pending", "not run"), found("verified")
    withdrawn, benchmarked = found("withdrawn", "row 3"), found("benchmarked")
    assert status_of([pending]) == ("pending", "not run")
    assert status_of([pending, verified, benchmarked]) == ("verified", None)
    assert status_of([verified, withdrawn, benchmarked]) == ("withdrawn", "row 3")
