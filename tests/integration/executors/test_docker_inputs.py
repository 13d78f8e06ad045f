"""What a container gets to read: whole files in a local store, whatever the repository has."""

from __future__ import annotations

from pathlib import Path

from support import records
from support.chunked_engines import engine, in_chunks
from support.signed_repository import Signed

from builders.executors.docker import _with_local_blobs
from builders.jobs.messages import BuildJob, VerifyJob
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.schema.layout import blob_key
from zoo.stores import open_store


def job_of(signed: Signed) -> BuildJob:
    lock = signed.blob(b"tactics")
    inputs = records.build_inputs(options={"tactics": lock.sha256})
    return BuildJob(
        inputs=inputs, onnx=signed.blob(b"onnx"), parameters=1, verification=None,
        store=signed.store.url,
    )  # fmt: skip


def test_a_local_store_is_read_where_it_is(signed: Signed) -> None:
    job = job_of(signed)
    with _with_local_blobs(job) as (given, folder):
        assert given is job
        assert folder == signed.folder / "store"


def test_inputs_in_a_bucket_are_copied_locked_tactics_included(tmp_path: Path, s3: str) -> None:
    job = job_of(Signed(tmp_path, url=s3))
    with _with_local_blobs(job) as (given, folder):
        assert isinstance(given, BuildJob)
        here = Repository(open_store(given.store))
        assert here.blobs.whole(given.onnx, tmp_path).read_bytes() == b"onnx"
        lock = here.blobs.find(str(job.inputs.options["tactics"]))
        assert lock is not None
        assert here.store.get(blob_key(lock.sha256)) == b"tactics"
        assert folder.is_dir()
    assert not folder.exists()


def test_an_engine_that_is_stored_as_chunks_is_put_together(
    signed: Signed,
) -> None:
    record = signed.release("m", engine())
    in_chunks(signed, Chunking.ONLY)
    signed.blob_path(record).unlink()
    job = VerifyJob.model_construct(record=record, verification=None, store=signed.store.url)
    with _with_local_blobs(job) as (given, folder):
        assert folder != signed.folder / "store"
        here = Repository(open_store(given.store))
        assert here.store.get(blob_key(record.engine.sha256)) == engine()
