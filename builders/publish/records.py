"""Stores a worker's results in a repository: blobs first, then attestations, the record last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from builders.jobs.messages import BuildJob, BuildOutput, ExportJob, ExportOutput, VerificationSpec
from builders.planning.wanted import verification_inputs
from builders.publish import provenance
from builders.publish.provenance_file import PROVENANCE
from zoo.repository.repository import Repository
from zoo.schema.keys import VerificationInputs
from zoo.schema.licences import (
    LICENCE_FILE,
    NOTICE_FILE,
    allowed_licences,
    licence_text,
    notice_text,
)
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import (
    AttestationBody,
    BenchmarkedBody,
    ComparedBody,
    MachineDescription,
    PendingBody,
    ReinstatedBody,
    VerifiedBody,
    WithdrawnBody,
)
from zoo.schema.records import (
    Attestation,
    AttestationKind,
    Blob,
    BuildRecord,
    ExportRecord,
    FailureReason,
    FailureRecord,
    FailureStage,
    PrecisionStatus,
    StateRecord,
    TimingCacheRecord,
)
from zoo.util.clock import utc_now
from zoo.util.digest import sha256_bytes, sha256_json

NOT_RUN = "built on a machine without this GPU; it has not been run"


def publish_export(
    repository: Repository, job: ExportJob, output: ExportOutput, folder: Path
) -> None:
    """Stores ONNX files, golden features and a newly seeded state."""
    if output.state is not None:
        state = repository.blobs.add(folder / output.state)
        record = StateRecord(model=job.manifest.id, recipe=job.weights.digest, state=state)
        repository.add_state(record)
    if output.golden is not None:
        golden = repository.blobs.add(folder / output.golden)
    else:
        assert job.fp32 is not None
        golden = job.fp32.golden
    for made in output.exports:
        repository.add_export(
            ExportRecord(
                inputs=made.inputs,
                onnx=repository.blobs.add(folder / made.onnx),
                golden=golden,
                parameters=made.parameters,
                largest_tensor=made.largest_tensor,
                check=made.check,
                calibration=made.calibration,
                advice=made.advice,
                notes=output.notes,
                cost=output.cost,
            )
        )
    for refused in output.disabled:
        repository.add_failed_export(
            FailureRecord(
                stage=FailureStage.EXPORT,
                reason=FailureReason.TOLERANCE,
                text=refused.reason,
                inputs=refused.inputs,
                time=utc_now(),
                calibration=refused.calibration,
                advice=refused.advice,
                stricter_may_pass=refused.stricter_may_pass,
                cost=output.cost,
            )
        )


def publish_build(
    repository: Repository,
    job: BuildJob,
    targets: Iterable[str],
    manifest: Manifest,
    export: ExportRecord,
    output: BuildOutput,
    folder: Path,
    spec: VerificationSpec | None,
    now: Callable[[], str] = utc_now,
) -> BuildRecord:
    """Stores a built engine with its attestations.

    Args:
        repository: Where to store it.
        job: The job that built it.
        targets: Labels of the targets that the engine serves.
        manifest: The model.
        export: The ONNX export that it was built from.
        output: The worker's result; its verification, if any, has passed.
        folder: The worker's output directory.
        spec: How the engine was verified; None if it was not run.
        now: The clock.
    """
    assert output.engine is not None
    engine = repository.blobs.add(folder / output.engine)
    created = now()
    origin = provenance.statement(job, export, output, engine, created)
    documents = {
        PROVENANCE: json.dumps(origin, indent=1) + "\n",
        **_licence_documents(manifest, export),
    }
    record = BuildRecord(
        inputs=job.inputs,
        export_key=export.inputs.key,
        targets=tuple(targets),
        engine=engine,
        golden=export.golden,
        files=_side_files(repository, output, folder, documents),
        feature_dim=manifest.backbone.feature_dim,
        advice=export.advice,
        dry_run=export.inputs.weights.seeded,
        precision_status=PrecisionStatus.PROVEN
        if output.precision_proven
        else PrecisionStatus.UNPROVEN,
        facts=output.facts,
        licence=manifest.licence,
        weights=export.inputs.weights.source,
        cost=output.cost,
        created=created,
    )
    file = sha256_bytes(record.to_json())
    if spec is None:
        attest_pending(repository, engine.sha256, job.inputs.key, output, now, file=file)
    else:
        inputs = verification_inputs(engine.sha256, spec)
        attest_verification(repository, inputs, job.inputs.key, output, now, file=file)
    repository.add_record(record)
    if output.timing_cache is not None:
        publish_timing_cache(repository, record, output, folder)
    return record


def _licence_documents(manifest: Manifest, export: ExportRecord) -> dict[str, str]:
    """Returns the licence documents of an engine's weights, to be stored beside it."""
    if manifest.licence not in allowed_licences():
        return {}  # a dry run with seeded weights
    notice = notice_text(
        title=manifest.catalog.title,
        model=manifest.id,
        licence=manifest.licence,
        origin=manifest.origin,
        weights=export.inputs.weights.source,
    )
    return {LICENCE_FILE: licence_text(manifest.licence), NOTICE_FILE: notice}


def _side_files(
    repository: Repository, output: BuildOutput, folder: Path, documents: Mapping[str, str]
) -> dict[str, Blob]:
    """Stores the files beside an engine: the worker's files, its log, and documents."""
    files: dict[str, Blob] = {
        name: repository.blobs.add(folder / file) for name, file in output.files.items()
    }
    for name, text in documents.items():
        path = folder / f"paper-{name}"
        path.write_text(text, encoding="utf-8")
        files[name] = repository.blobs.add(path)
    log = folder / "log.txt"
    if log.is_file() and log.stat().st_size:
        files["log"] = repository.blobs.add(log)
    return files


def publish_timing_cache(
    repository: Repository, record: BuildRecord, output: BuildOutput, folder: Path
) -> None:
    """Stores the timing cache of a build, for the next build on a GPU of the same name."""
    assert output.timing_cache is not None
    device = output.machine.gpu_name
    assert device is not None  # such a result was refused
    cache = TimingCacheRecord(
        device=device,
        toolchain=record.inputs.toolchain,
        cache=repository.blobs.add(folder / output.timing_cache),
    )
    repository.put_timing_cache(cache)


def attest_verification(
    repository: Repository,
    inputs: VerificationInputs,
    build: str,
    output: BuildOutput,
    now: Callable[[], str] = utc_now,
    *,
    file: str | None,
) -> None:
    """Attests a verification (verified, or withdrawn with a reason) and its benchmark.

    Args:
        repository: Where the engine is stored.
        inputs: The inputs of the verification.
        build: Key of the engine's build record.
        output: The worker's result.
        now: The clock.
        file: Digest of that record's file.
    """
    verification = output.verification
    assert verification is not None
    numbers = VerifiedBody if verification.passed else WithdrawnBody
    body = numbers(batches=verification.batches, tolerance=inputs.tolerance)
    if verification.probe is not None:
        body = body.but(probe=verification.probe)
    timed = tuple(row for row in output.benchmark if row.not_measured is None)
    noisy = tuple(row for row in output.benchmark if row.not_measured is not None)
    if noisy:
        body = body.but(not_measured=[row.model_dump() for row in noisy])
    attest = partial(
        _attest, repository, engine=inputs.engine, key=inputs.key, build=build, output=output,
        now=now, file=file,
    )  # fmt: skip
    if timed:  # else what was measured on a quiet machine stays
        attest(AttestationKind.BENCHMARKED, body=BenchmarkedBody(batches=timed))
    if output.comparison is not None:
        attest_comparison(repository, inputs.engine, output.comparison, output.machine, now)
    elif output.not_compared is not None:
        body = body.but(not_compared=output.not_compared)
    if verification.passed:
        attest(AttestationKind.VERIFIED, body=body)
    else:
        body = body.but(reason=verification.reason or "verification failed")
        attest(AttestationKind.WITHDRAWN, body=body)


def attest_comparison(
    repository: Repository,
    engine: str,
    comparison: ComparedBody,
    machine: MachineDescription,
    now: Callable[[], str] = utc_now,
) -> None:
    """Attests how fast an engine is compared with PyTorch on the same machine."""
    stated = comparison.model_dump(mode="json")
    repository.attest(
        Attestation(
            kind=AttestationKind.COMPARED,
            engine=engine,
            time=now(),
            key=sha256_json({"engine": engine, "comparison": stated}),
            machine=machine,
            body=comparison,
        )
    )


def withdrawal(engine: str, reason: str, now: Callable[[], str] = utc_now) -> Attestation:
    """Returns the attestation that a person withdraws an engine, on every architecture."""
    stated = {"reason": reason, "by": "a maintainer"}
    body = WithdrawnBody.model_validate(stated)
    return _by_hand(AttestationKind.WITHDRAWN, engine, body, now)


def reinstatement(engine: str, reason: str, now: Callable[[], str] = utc_now) -> Attestation:
    """Returns the attestation that a person ends the withdrawal of an engine verified since."""
    stated = {"reason": reason, "by": "a maintainer"}
    body = ReinstatedBody.model_validate(stated)
    return _by_hand(AttestationKind.REINSTATED, engine, body, now)


def _by_hand(
    kind: AttestationKind, engine: str, body: AttestationBody, now: Callable[[], str]
) -> Attestation:
    return Attestation(
        kind=kind,
        engine=engine,
        time=now(),
        key=sha256_json({"engine": engine, **body.model_dump(mode="json")}),
        machine=MachineDescription(),
        body=body,
    )


def attest_pending(
    repository: Repository,
    engine: str,
    build: str,
    output: BuildOutput | None,
    now: Callable[[], str] = utc_now,
    *,
    file: str | None,
) -> None:
    """Attests that an engine has not been run; see :func:`attest_verification`."""
    key = sha256_json({"engine": engine, "reason": NOT_RUN})
    _attest(
        repository, AttestationKind.PENDING, engine=engine, key=key, build=build, output=output,
        body=PendingBody(reason=NOT_RUN), now=now, file=file,
    )  # fmt: skip


def _attest(
    repository: Repository,
    kind: AttestationKind,
    *,
    engine: str,
    key: str,
    build: str | None,
    output: BuildOutput | None,
    body: AttestationBody,
    now: Callable[[], str],
    file: str | None,
) -> None:
    repository.attest(
        Attestation(
            kind=kind,
            engine=engine,
            time=now(),
            key=key,
            machine=output.machine if output else MachineDescription(),
            body=body,
        ),
        build,
        file,
    )
