"""Publish: what a worker made, into a repository. Blobs first, attestations, the record last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from builders.jobs.messages import BuildJob, BuildOutput, ExportJob, ExportOutput
from builders.publish import provenance
from zoo.repository.repository import Repository
from zoo.schema.index import ComparisonSummary
from zoo.schema.keys import VerificationInputs
from zoo.schema.licences import (
    LICENCE_FILE,
    NOTICE_FILE,
    allowed_licences,
    licence_text,
    notice_text,
)
from zoo.schema.manifest import Manifest
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
from zoo.util.digest import sha256_json

NOT_RUN = "built on a machine without this GPU; it has not been run"


def publish_export(
    repository: Repository, job: ExportJob, output: ExportOutput, folder: Path
) -> None:
    """Stores ONNX files, golden and a newly seeded state."""
    if output.state is not None:
        state = repository.add_blob(folder / output.state)
        record = StateRecord(model=job.manifest.id, recipe=job.weights.digest, state=state)
        repository.add_state(record)
    if output.golden is not None:
        golden = repository.add_blob(folder / output.golden)
    else:
        assert job.fp32 is not None
        golden = job.fp32.golden
    for made in output.exports:
        repository.add_export(
            ExportRecord(
                inputs=made.inputs,
                onnx=repository.add_blob(folder / made.onnx),
                golden=golden,
                parameters=made.parameters,
                largest_tensor=made.largest_tensor,
                check=made.check,
                calibration=made.calibration,
                advice=made.advice,
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
    verdict: Callable[[str], VerificationInputs] | None,
    now: Callable[[], str] = utc_now,
) -> BuildRecord:
    """Stores a built engine with what was found out about it.

    Args:
        repository: Where to.
        job: What was built.
        targets: Labels of the targets that the engine serves.
        manifest: The model.
        export: What it was built from.
        output: The worker's result; its verification, if any, has passed.
        folder: The worker's output directory.
        verdict: From the engine's digest to the inputs of its verdict; None where it was not run.
        now: The clock.
    """
    assert output.engine is not None
    engine = repository.add_blob(folder / output.engine)
    if verdict is None:
        attest_pending(repository, engine.sha256, output, now)
    else:
        attest_proof(repository, verdict(engine.sha256), output, now)
    created = now()
    origin = provenance.statement(job, export, output, engine, created)
    papers = {
        provenance.PROVENANCE: json.dumps(origin, indent=1) + "\n",
        **_licence_papers(manifest, export),
    }
    record = BuildRecord(
        inputs=job.inputs,
        export_key=export.inputs.key,
        targets=tuple(targets),
        engine=engine,
        golden=export.golden,
        files=_side_files(repository, output, folder, papers),
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
    repository.add_record(record)
    if output.timing_cache is not None:
        publish_timing_cache(repository, record, output, folder)
    return record


def _licence_papers(manifest: Manifest, export: ExportRecord) -> dict[str, str]:
    """Returns what is to lie beside an engine for the sake of those whose weights it holds."""
    if manifest.licence not in allowed_licences():
        return {}  # a dry run's: its weights are nobody's
    notice = notice_text(
        title=manifest.catalog.title,
        model=manifest.id,
        licence=manifest.licence,
        origin=manifest.origin,
        weights=export.inputs.weights.source,
    )
    return {LICENCE_FILE: licence_text(manifest.licence), NOTICE_FILE: notice}


def _side_files(
    repository: Repository, output: BuildOutput, folder: Path, papers: Mapping[str, str]
) -> dict[str, Blob]:
    """Stores what is kept beside an engine: the worker's files, its log, and papers."""
    files: dict[str, Blob] = {
        name: repository.add_blob(folder / file) for name, file in output.files.items()
    }
    for name, text in papers.items():
        path = folder / f"paper-{name}"
        path.write_text(text, encoding="utf-8")
        files[name] = repository.add_blob(path)
    log = folder / "log.txt"
    if log.is_file() and log.stat().st_size:
        files["log"] = repository.add_blob(log)
    return files


def publish_timing_cache(
    repository: Repository, record: BuildRecord, output: BuildOutput, folder: Path
) -> None:
    """Stores the timing cache that a build left, for the next build on such a GPU."""
    assert output.timing_cache is not None
    device = output.machine.gpu_name
    assert device is not None  # such a result was refused
    cache = TimingCacheRecord(
        device=device,
        toolchain=record.inputs.toolchain,
        cache=repository.add_blob(folder / output.timing_cache),
    )
    repository.put_timing_cache(cache)


def attest_proof(
    repository: Repository,
    inputs: VerificationInputs,
    output: BuildOutput,
    now: Callable[[], str] = utc_now,
) -> None:
    """Stores a verdict: verified with its numbers and the benchmark, or withdrawn with a reason."""
    verification = output.verification
    assert verification is not None
    body: dict[str, Any] = {"batches": list(verification.batches), "tolerance": inputs.tolerance}
    if verification.probe is not None:
        body["probe"] = verification.probe
    if output.benchmark:
        _attest(
            repository, AttestationKind.BENCHMARKED, inputs.engine, inputs.key, output,
            {"batches": list(output.benchmark)}, now,
        )  # fmt: skip
    if verification.passed:
        _attest(repository, AttestationKind.VERIFIED, inputs.engine, inputs.key, output, body, now)
    else:
        body["reason"] = verification.reason or "verification failed"
        _attest(repository, AttestationKind.WITHDRAWN, inputs.engine, inputs.key, output, body, now)


def attest_comparison(
    repository: Repository,
    engine: str,
    comparison: ComparisonSummary,
    now: Callable[[], str] = utc_now,
) -> None:
    """Stores how fast an engine is beside PyTorch on the same machine."""
    body = comparison.model_dump(mode="json", exclude={"machine"})
    repository.attest(
        Attestation(
            kind=AttestationKind.COMPARED,
            engine=engine,
            time=now(),
            key=sha256_json({"engine": engine, "comparison": body}),
            machine=comparison.machine,
            body=body,
        )
    )


def attest_pending(
    repository: Repository,
    engine: str,
    output: BuildOutput | None,
    now: Callable[[], str] = utc_now,
) -> None:
    """Says of an engine that it has not been run."""
    key = sha256_json({"engine": engine, "reason": NOT_RUN})
    _attest(repository, AttestationKind.PENDING, engine, key, output, {"reason": NOT_RUN}, now)


def _attest(
    repository: Repository,
    kind: AttestationKind,
    engine: str,
    key: str,
    output: BuildOutput | None,
    body: dict[str, Any],
    now: Callable[[], str],
) -> None:
    repository.attest(
        Attestation(
            kind=kind,
            engine=engine,
            time=now(),
            key=key,
            machine=output.machine if output else {},
            body=body,
        )
    )
