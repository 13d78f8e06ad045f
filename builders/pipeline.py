"""Pipeline: manifest to published engine. It composes the stages; `pending` takes parts of it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from builders import inputs, listing, plan, publish, weights
from builders.backends import get_backend
from builders.calibration import CalibrationSet
from builders.executors import Executor, Outcome
from builders.inputs import Form
from builders.job import BuildJob, BuildOutput, ExportJob, ExportOutput, Job, Prove, VerifyJob
from builders.plan import Wanted
from builders.progress import Display
from builders.proposals import Proposals
from builders.strikes import DisabledCellError, Strikes
from builders.summary import Summary
from builders.weights import WeightsMode
from zoo.errors import JobError, RepositoryError, VerificationError, ZooError
from zoo.index import Candidate
from zoo.key import VerificationInputs, WeightsIdentity
from zoo.licences import check_licence
from zoo.machine import local_archs
from zoo.manifest import Manifest
from zoo.record import BuildRecord, DisabledRecord, ExportRecord, concerning, status_of
from zoo.repository import Repository
from zoo.runtime import SESSIONS
from zoo.target import Arch, Precision, Toolchain


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``make zoo`` was asked for.

    Attributes:
        manifests: The models.
        manifest_dir: Their folder.
        toolchains: What builds for each architecture.
        precisions: By name, or None for all that a model and its target take.
        weights: Real weights, or seeded ones.
        calibration: The images that lower precisions are measured and tried on.
        builder: Builder options by name, as text.
        failures: Folder that keeps the job and log of what failed.
    """

    manifests: dict[str, Manifest]
    manifest_dir: Path
    toolchains: dict[Arch, Toolchain]
    precisions: tuple[Precision, ...] | None
    weights: WeightsMode
    calibration: CalibrationSet
    failures: Path
    builder: dict[str, str] = field(default_factory=dict)


class Farm:
    """Brings a repository to what a request wants, one model after the other.

    Args:
        repository: Where engines are published.
        executor: What runs jobs.
        display: Where progress is shown.
        proposals: Takes what the index is to say.
        strikes: Counts what fails; None to count nothing.
    """

    def __init__(
        self,
        repository: Repository,
        executor: Executor,
        display: Display,
        proposals: Proposals,
        strikes: Strikes | None = None,
    ) -> None:
        self._strikes = strikes or Strikes(repository)
        self._repository = repository
        self._executor = executor
        self._display = display
        self._proposals = proposals

    def run(self, request: Request) -> Summary:
        """Runs a request. A model that fails does not stop the others."""
        summary = Summary()
        self._repository.claim("dry-run" if request.weights == "seeded" else "release")
        for manifest in request.manifests.values():
            try:
                self._run_model(manifest, request, summary)
            except ZooError as error:
                summary.failed[manifest.id] = error
        return summary

    def _run_model(self, manifest: Manifest, request: Request, summary: Summary) -> None:
        if request.weights != "seeded":
            check_licence(manifest.id, manifest.licence)
        wanted = plan.wanted_engines(manifest, request.toolchains, request.precisions)
        identity = weights.identify(manifest, request.weights)
        exports = self._exports(manifest, identity, wanted, request)
        records, cells = [], []
        for engine in wanted:
            label = f"{manifest.id} {engine.label}"
            export = exports[_form(engine)]
            if isinstance(export, DisabledRecord):
                summary.disabled[label] = export.reason
                cells.append(listing.disabled_cell(engine.targets, export))
                continue
            if export.advice is not None and export.advice.mixed:
                engine = replace(engine, mixed=True)
                label = f"{manifest.id} {engine.label}"
            try:
                record, done = self._engine(label, manifest, engine, export, request)
            except DisabledCellError as error:
                summary.disabled[label] = str(error)
                cells.append(error.cell)
                continue
            except ZooError as error:
                summary.failed[label] = error
                continue
            records.append(record)
            getattr(summary, done).append(label)
            if done != "current":
                self._display.say(f"{label}: {done}")
        self._proposals.send(
            Candidate(
                card=listing.model_card(manifest, identity),
                weights=identity,
                backbone=manifest.backbone,
                records=tuple(dict.fromkeys(record.key for record in records)),
                disabled=tuple(cells),
            )
        )

    def _exports(
        self,
        manifest: Manifest,
        identity: WeightsIdentity,
        wanted: list[Wanted],
        request: Request,
    ) -> dict[Form, ExportRecord | DisabledRecord]:
        """Returns the exports that the wanted engines need, making those that are missing.

        Returns:
            By form; the reason where a form can't be had.
        """
        needed: dict[str, list[Form]] = {}
        for engine in wanted:
            form = _form(engine)
            # Other precisions are derived from fp32, which comes first.
            fp32 = Form(dialect=form.dialect, precision="fp32")
            forms = needed.setdefault(form.dialect, [fp32])
            if form not in forms:
                forms.append(form)
        return {
            form: record
            for forms in needed.values()
            for form, record in self._exports_in(forms, manifest, identity, request).items()
        }

    def _exports_in(
        self,
        forms: list[Form],
        manifest: Manifest,
        identity: WeightsIdentity,
        request: Request,
    ) -> dict[Form, ExportRecord | DisabledRecord]:
        """Returns the exports of one dialect."""
        repository, images = self._repository, request.calibration
        asked = {
            form: inputs.export_inputs(manifest, identity, form, images.name) for form in forms
        }
        found = {
            form: record
            for form, export in asked.items()
            if (record := _export_or_reason(repository, manifest.id, export.key)) is not None
        }
        missing = [form for form in forms if form not in found]
        if missing:
            state = repository.state(manifest.id, identity.digest) if identity.seeded else None
            fp32 = found.get(forms[0])
            assert not isinstance(fp32, DisabledRecord)
            job = ExportJob(
                manifest=manifest,
                manifest_dir=str(request.manifest_dir.resolve()),
                weights=identity,
                inputs={form.name: asked[form] for form in missing},
                calibration=images,
                fp32=fp32,
                state=state.state if state else None,
                store=repository.store.url,
            )
            with self.job(manifest.id, job, request.failures) as outcome:
                assert isinstance(outcome.result, ExportOutput)
                publish.publish_export(repository, job, outcome.result, outcome.folder)
            for form in missing:
                record = _export_or_reason(repository, manifest.id, asked[form].key)
                assert record is not None
                found[form] = record
        return found

    def _engine(
        self,
        label: str,
        manifest: Manifest,
        wanted: Wanted,
        export: ExportRecord,
        request: Request,
    ) -> tuple[BuildRecord, str]:
        """Brings one engine to what is wanted.

        Returns:
            Its record, and the list of :class:`Summary` that it belongs in.
        """
        repository = self._repository
        options = get_backend(wanted.toolchain.kind).options(wanted.toolchain, request.builder)
        build = plan.build_inputs(manifest, wanted, export, options)
        prove = (
            plan.proof(manifest, export, wanted.precision, build.profiles)
            if can_run(wanted)
            else None
        )

        def verdict(engine: str) -> VerificationInputs:
            assert prove is not None
            return plan.verification_inputs(engine, prove, inputs.VERIFICATION_METHOD)

        record = repository.record(manifest.id, build.key) or plan.find_engine(
            build, repository.records(manifest.id)
        )
        if record is not None and not repository.has_blob(record.engine):
            raise RepositoryError(
                f"record {record.key} names engine {record.engine.sha256}, which is missing or cut "
                "short",
                hint=".venv/bin/zoo-farm check --repair removes what is damaged, to be made again",
            )
        attestations = repository.attestations(record.engine.sha256) if record else []
        if prove is not None and (arch := _arch_here(wanted)):
            attestations = concerning(attestations, arch.name)
        key = verdict(record.engine.sha256).key if record and prove else None
        need = plan.need_of(record, attestations, key)
        if need == "build":
            job = BuildJob(
                inputs=build,
                onnx=export.onnx,
                parameters=export.parameters,
                prove=prove,
                store=repository.store.url,
            )
            with (
                self._strikes.watch(build, wanted, export),
                self.job(label, job, request.failures) as outcome,
            ):
                record = publish.publish_build(
                    repository,
                    job,
                    [str(target) for target in wanted.targets],
                    manifest,
                    export,
                    passed(outcome, "not published"),
                    outcome.folder,
                    verdict if prove else None,
                )
            return record, "published"
        assert record is not None
        if need == "nothing":
            return record, "current"
        if need == "attest pending":
            publish.attest_pending(repository, record.engine.sha256, None)
            return record, "current"
        if need == "withdrawn":
            if attestations[-1].by_hand:
                raise VerificationError(
                    f"withdrawn: {status_of(attestations)[1]}",
                    hint="a maintainer said so; other inputs make another engine",
                )
            raise VerificationError(
                f"withdrawn: {status_of(attestations)[1]}",
                hint="found by an earlier run; the numbers are in attestations/"
                f"{record.engine.sha256}, and that run's job and log in {request.failures}",
            )
        assert prove is not None
        self._verify(label, record, prove, verdict(record.engine.sha256), request)
        return record, "verified"

    def _verify(
        self,
        label: str,
        record: BuildRecord,
        prove: Prove,
        verdict: VerificationInputs,
        request: Request,
    ) -> None:
        """Proves a published engine again; one that fails is withdrawn."""
        repository = self._repository
        job = VerifyJob(record=record, prove=prove, store=repository.store.url)
        with self.job(label, job, request.failures) as outcome:
            assert isinstance(outcome.result, BuildOutput)
            publish.attest_proof(repository, verdict, outcome.result)
            passed(outcome, "withdrawn")

    @contextmanager
    def job(self, label: str, job: Job, failures: Path) -> Iterator[Outcome]:
        """Runs a job in a scratch folder; keeps job, log and result of one that fails."""
        kept = failures / label.replace(" ", "-")
        folder = _scratch_folder(self._repository)
        try:
            with self._display.job(label) as report:
                outcome = self._executor.run(job, folder, report)
            yield outcome
            shutil.rmtree(kept, ignore_errors=True)  # of an earlier run
        except (JobError, VerificationError) as error:
            _keep(folder, kept)
            command = f"{Path(sys.executable).parent / 'zoo-farm'} worker"
            kept = kept.absolute()
            raise type(error)(
                error.message,
                hint=f"{error.hint + '; ' if error.hint else ''}log: {kept / 'log.txt'}\n"
                f"  to reproduce: {command} {kept / 'job.json'} {kept / 'again'}",
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _form(wanted: Wanted) -> Form:
    return Form.for_line(wanted.toolchain.line, wanted.precision)


def _export_or_reason(
    repository: Repository, model: str, key: str
) -> ExportRecord | DisabledRecord | None:
    """Returns an export that is whole, or why there is none; None where it was not tried."""
    record = repository.export(model, key)
    if record is None:
        return repository.disabled(model, key)
    whole = repository.has_blob(record.onnx) and repository.has_blob(record.golden)
    return record if whole else None


def can_run(wanted: Wanted) -> bool:
    """Whether this machine can run an engine: there is a session for it, and the GPU."""
    return wanted.toolchain.kind in SESSIONS and _arch_here(wanted) is not None


def _arch_here(wanted: Wanted) -> Arch | None:
    """Returns the first of an engine's architectures that this machine has."""
    return next((arch for arch in (Arch("cpu"), *local_archs()) if arch in wanted.archs), None)


def passed(outcome: Outcome, otherwise: str) -> BuildOutput:
    """Returns a build's output.

    Args:
        outcome: Of a build or verification.
        otherwise: What happens to an engine that fails, for the message.

    Raises:
        VerificationError: Its engine misses its tolerance.
    """
    output = outcome.result
    assert isinstance(output, BuildOutput)
    if output.verification is not None and not output.verification.passed:
        raise VerificationError(f"{otherwise}: {output.verification.reason}")
    return output


def _scratch_folder(repository: Repository) -> Path:
    """Makes a folder for a job, on the store's file system: outputs are moved, not copied."""
    inside = repository.store.local_path("scratch")
    if inside is None:
        return Path(tempfile.mkdtemp(prefix="job-"))
    root = inside.parent / ".incoming"
    root.mkdir(parents=True, exist_ok=True)
    here = f"job-{platform.node()}-"
    for left in root.glob(f"{here}*"):
        owner = left.name.removeprefix(here).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():  # a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{here}{os.getpid()}-", dir=root))


def _keep(folder: Path, kept: Path) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name in ("job.json", "log.txt", "result.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, kept / name)
