"""Runs the jobs that build and verify an engine, and publishes the results."""

from __future__ import annotations

from dataclasses import dataclass

from builders.jobs.messages import BuildJob, BuildOutput, VerifyJob
from builders.planning import wanted
from builders.planning.decision import Decision
from builders.planning.known import RepositoryKnown
from builders.planning.request import Request
from builders.publish import records
from builders.run.job_runner import JobRunner, passed
from builders.run.linear_probe import Probing
from zoo.repository.repository import Repository
from zoo.schema.manifest import Manifest
from zoo.schema.records import BuildRecord


@dataclass(frozen=True, kw_only=True)
class EngineJobs:
    """Runs the jobs of one model's engines.

    Attributes:
        repository: Where engines are published.
        jobs: Runs jobs.
        manifest: The model.
        request: The request.
        known: The repository's contents for the model; notified of changes.
        probing: Adds the linear probe to verdicts.
    """

    repository: Repository
    jobs: JobRunner
    manifest: Manifest
    request: Request
    known: RepositoryKnown
    probing: Probing

    def build(self, decision: Decision) -> str:
        """Builds an engine, verifies it if it can be run, and publishes it.

        Raises:
            MissError: It misses its tolerance.
        """
        assert decision.inputs is not None
        assert decision.export is not None
        assert decision.wanted is not None
        spec = decision.verification
        if spec is not None:
            spec = self.probing.with_photos(self.manifest, spec)
        job = BuildJob(
            inputs=decision.inputs,
            onnx=decision.export.onnx,
            parameters=decision.export.parameters,
            verification=spec,
            store=self.repository.store.url,
        )
        request = self.request
        with self.jobs.job(decision.label, job, request.failures, retry=request.retry) as outcome:
            outcome = self.probing.with_probe(outcome, self.manifest, decision.wanted.precision)
            record: BuildRecord = records.publish_build(
                self.repository,
                job,
                [str(target) for target in decision.wanted.targets],
                self.manifest,
                decision.export,
                passed(outcome, "not published"),
                outcome.folder,
                spec,
            )
        return record.key

    def verify(self, decision: Decision) -> str:
        """Verifies a stored engine again.

        Raises:
            MissError: It misses its tolerance, and is withdrawn.
        """
        assert decision.record is not None
        assert decision.verification is not None
        record = self.known.record(decision.record)
        assert record is not None
        spec = self.probing.with_photos(self.manifest, decision.verification)
        job = VerifyJob(record=record, verification=spec, store=self.repository.store.url)
        request = self.request
        with self.jobs.job(decision.label, job, request.failures, retry=request.retry) as outcome:
            outcome = self.probing.with_probe(outcome, self.manifest, record.inputs.precision)
            assert isinstance(outcome.result, BuildOutput)
            verdict = wanted.verification_inputs(record.engine.sha256, spec)
            file = self.repository.record_file(self.manifest.id, record.key).sha256
            records.attest_verification(
                self.repository, verdict, record.key, outcome.result, file=file
            )
            self.known.attested(record.engine.sha256)
            passed(outcome, "withdrawn")
        return record.key
