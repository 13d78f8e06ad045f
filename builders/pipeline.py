"""Pipeline: manifest to published engine. It composes the stages; `pending` takes parts of it."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from builders import inputs, listing, parallel, plan, publish, scratch, weights
from builders.executors import Executor, Outcome
from builders.exports import Export, Exports
from builders.inputs import Form
from builders.job import BuildJob, BuildOutput, Job, Prove, VerifyJob
from builders.misses import Misses, best_form
from builders.order import Order, build_inputs, form_of
from builders.plan import Wanted
from builders.probing import Probing
from builders.progress import Display
from builders.proposals import Proposals
from builders.request import Request
from builders.strikes import DisabledCellError, Strikes
from builders.summary import Summary
from zoo.errors import (
    ClusterError,
    JobError,
    MissError,
    RepositoryError,
    VerificationError,
    ZooError,
)
from zoo.index import Candidate, DisabledCell
from zoo.key import VerificationInputs
from zoo.licences import check_licence
from zoo.manifest import Manifest
from zoo.record import (
    Attestation,
    BuildRecord,
    DisabledRecord,
    ExportRecord,
    Kind,
    concerning,
    status_of,
)
from zoo.repository import Repository
from zoo.runtime import SESSIONS
from zoo.target import Arch

T = TypeVar("T")
R = TypeVar("R")


class Farm:
    """Brings a repository to what a request wants: as much at once as the executor takes.

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
        self._misses = Misses(repository)
        self._repository = repository
        self._executor = executor
        self._display = display
        self._proposals = proposals
        self._signing = threading.Lock()

    def run(self, request: Request) -> Summary:
        """Runs a request. A model that fails does not stop the others.

        Raises:
            ClusterError: Nothing can be run any more.
        """
        self._repository.claim(Kind.DRY_RUN if request.weights == "seeded" else Kind.RELEASE)
        self._probing = Probing(
            request.labelled, request.failures / "labelled", request.manifest_dir,
            partial(self.job, failures=request.failures), self._repository.store.url,
        )  # fmt: skip

        def run_model(manifest: Manifest) -> Summary:
            summary = Summary()
            try:
                self._run_model(manifest, request, summary)
            except ClusterError:
                raise
            except ZooError as error:
                summary.failed[manifest.id] = error
            return summary

        whole = Summary()
        try:
            for part in self._each(run_model, request.manifests.values()):
                whole.add(part)
        finally:
            self._probing.close()
        return whole

    def _each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        return parallel.each(function, items, self._executor.slots, self._executor.stop)

    def _run_model(self, manifest: Manifest, request: Request, summary: Summary) -> None:
        if request.weights != "seeded":
            check_licence(manifest.id, manifest.licence)
        wanted = plan.wanted_engines(manifest, request.toolchains, request.precisions)
        if not wanted:  # what no model has was refused before: this one's family has none of it
            lines = {arch: chain.line for arch, chain in request.toolchains.items()}
            asked = request.precisions or tuple(manifest.precisions)
            plan.check_request(lines, asked, manifest.family)
        identity = weights.identify(manifest, request.weights)
        exports = Exports(
            self._repository, manifest, identity, request,
            partial(self.job, manifest.id, failures=request.failures),
        )  # fmt: skip
        exports.make(map(form_of, wanted))
        cells: list[DisabledCell] = []

        def bring(engine: Wanted) -> BuildRecord | None:
            return self._bring(engine, manifest, exports, request, summary, cells)

        records = [record for record in self._each(bring, wanted) if record is not None]
        candidate = Candidate(
            card=listing.model_card(manifest, identity),
            weights=identity,
            backbone=manifest.backbone,
            records=tuple(dict.fromkeys(record.key for record in records)),
            disabled=tuple(sorted(cells, key=lambda cell: cell.targets)),
        )
        with self._signing:
            self._proposals.send(candidate)

    def _bring(
        self,
        wanted: Wanted,
        manifest: Manifest,
        exports: Exports,
        request: Request,
        summary: Summary,
        cells: list[DisabledCell],
    ) -> BuildRecord | None:
        """Brings one engine to what is wanted, and adds to the summary what came of it."""
        label = f"{manifest.id} {wanted.label}"
        missed: MissError | None = None
        try:
            for export in self._attempts(manifest, wanted, exports, request):
                if missed is not None:
                    self._display.say(f"{label}: {missed.message}; a stricter one is tried")
                if isinstance(export, DisabledRecord):
                    summary.disabled[label] = export.reason
                    cells.append(listing.disabled_cell(wanted.targets, export))
                    return None
                mixed = export.advice is not None and export.advice.mixed
                order = Order(
                    manifest=manifest, wanted=replace(wanted, mixed=mixed), export=export,
                    request=request,
                )  # fmt: skip
                label = order.label
                try:
                    record, done = self._engine(order)
                    break
                except MissError as error:
                    missed = error
            else:
                assert missed is not None
                stricter = [exports[form] for form in form_of(wanted).stricter]
                last = _without_stricter(missed, stricter)
                if self._recorded(order) is None:  # what is recorded was withdrawn instead
                    cells.append(self._strikes.miss(order, last))
                    hint = f"disabled, until RETRY=1 or other inputs; {last.hint}"
                    last = MissError(last.message, hint=hint)
                raise last
        except ClusterError:
            raise
        except DisabledCellError as error:
            summary.disabled[label] = str(error)
            cells.append(error.cell)
            return None
        except ZooError as error:
            summary.failed[label] = error
            return None
        getattr(summary, done).append(label)
        if done != "current":
            self._display.say(f"{label}: {done}")
        return record

    def _attempts(
        self, manifest: Manifest, engine: Wanted, exports: Exports, request: Request
    ) -> Iterator[Export]:
        """Yields what an engine is to be built from; where that missed, a stricter network."""

        def missed(export: ExportRecord) -> bool:
            build = build_inputs(manifest, engine, export, request.builder)
            return self._misses.known(build, manifest.kept_by(engine.precision))

        tried: Form | None = None
        while True:
            form, export = best_form(form_of(engine), exports.__getitem__, missed)
            if form == tried:
                return
            tried = form
            assert export is not None
            yield export

    def _engine(self, order: Order) -> tuple[BuildRecord, str]:
        """Brings one engine to what is wanted.

        Returns:
            Its record, and the list of :class:`Summary` that it belongs in.
        """
        arch = self._runs_on(order.wanted)
        prove = order.proof() if arch is not None else None
        record = self._recorded(order)
        if record is None:
            return self._build(order, prove), "published"
        engine = record.engine.sha256
        attestations = self._repository.attestations(engine)
        if arch is not None:
            attestations = concerning(attestations, arch.name)
        key = _verdict(engine, prove).key if prove is not None else None
        need = plan.need_of(record, attestations, key)
        if need == "withdrawn":
            raise _withdrawn(attestations, order.request.failures)
        if need == "verify" or (
            need == "nothing" and prove is not None and self._probing.lacks(attestations)
        ):
            assert prove is not None
            self._verify(order, record, prove)
            return record, "verified"
        if need == "attest pending":
            publish.attest_pending(self._repository, engine, None)
        return record, "current"

    def _recorded(self, order: Order) -> BuildRecord | None:
        """Returns the record of an engine that is built.

        Raises:
            RepositoryError: The engine itself is gone.
        """
        repository, model = self._repository, order.manifest.id
        record = repository.record(model, order.inputs.key) or plan.find_engine(
            order.inputs, repository.records(model)
        )
        if record is not None and not repository.has_blob(record.engine):
            raise RepositoryError(
                f"record {record.key} names engine {record.engine.sha256}, which is missing or cut "
                "short",
                hint=".venv/bin/zoo-farm check --repair removes what is damaged, to be made again",
            )
        return record

    def _build(self, order: Order, prove: Prove | None) -> BuildRecord:
        """Builds an engine, proves it where it can be run, and publishes it.

        Raises:
            MissError: It misses its floors.
            DisabledCellError: It failed before, and is not tried again.
        """
        if prove is not None:
            prove = self._probing.prove(order.manifest, prove)
        job = BuildJob(
            inputs=order.inputs,
            onnx=order.export.onnx,
            parameters=order.export.parameters,
            prove=prove,
            store=self._repository.store.url,
        )
        with (
            self._strikes.watch(order, self._misses.reason(order.inputs, order.tolerance)),
            self._misses.watch(order.inputs, order.tolerance),
            self.job(order.label, job, order.request.failures) as outcome,
        ):
            outcome = self._probing.judged(outcome, order.manifest, order.wanted.precision)
            return publish.publish_build(
                self._repository,
                job,
                [str(target) for target in order.wanted.targets],
                order.manifest,
                order.export,
                passed(outcome, "not published"),
                outcome.folder,
                partial(_verdict, prove=prove) if prove is not None else None,
            )

    def _verify(self, order: Order, record: BuildRecord, prove: Prove) -> None:
        """Proves a published engine again.

        Raises:
            MissError: It misses its floors, and is withdrawn.
        """
        repository, precision = self._repository, record.inputs.precision
        prove = self._probing.prove(order.manifest, prove)
        job = VerifyJob(record=record, prove=prove, store=repository.store.url)
        with (
            self._misses.watch(record.inputs, order.tolerance),
            self.job(order.label, job, order.request.failures) as outcome,
        ):
            outcome = self._probing.judged(outcome, order.manifest, precision)
            assert isinstance(outcome.result, BuildOutput)
            verdict = _verdict(record.engine.sha256, prove)
            publish.attest_proof(repository, verdict, outcome.result)
            passed(outcome, "withdrawn")

    def _runs_on(self, wanted: Wanted) -> Arch | None:
        """Returns the first of an engine's architectures on which it can be run and proven."""
        if wanted.toolchain.kind not in SESSIONS:
            return None
        return self._executor.runs_on(wanted.archs, wanted.toolchain)

    @contextmanager
    def job(self, label: str, job: Job, failures: Path) -> Iterator[Outcome]:
        """Runs a job in a scratch folder; keeps job, log and result of one that fails."""
        kept = failures / label.replace(" ", "-")
        scratch.check_quarantine(job, kept)
        folder = scratch.scratch_folder(self._repository)
        try:
            with self._display.job(label) as report:
                outcome = self._executor.run(job, folder, report)
            yield outcome
            shutil.rmtree(kept, ignore_errors=True)  # of an earlier run
        except (JobError, VerificationError) as error:
            scratch.keep(folder, kept)
            command = f"{Path(sys.executable).parent / 'zoo-farm'} worker"
            kept = kept.absolute()
            raise type(error)(
                error.message,
                hint=f"{error.hint + '; ' if error.hint else ''}log: {kept / 'log.txt'}\n"
                f"  to reproduce: {command} {kept / 'job.json'} {kept / 'again'}",
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _verdict(engine: str, prove: Prove) -> VerificationInputs:
    return plan.verification_inputs(engine, prove, inputs.VERIFICATION_METHOD)


def _withdrawn(attestations: list[Attestation], failures: Path) -> VerificationError:
    """Returns the error of an engine whose last word is that it was withdrawn."""
    last = attestations[-1]
    return VerificationError(
        f"withdrawn: {status_of(attestations)[1]}",
        hint="a maintainer said so; other inputs make another engine"
        if last.by_hand
        else f"found by an earlier run; the numbers are in attestations/{last.engine}, and that "
        f"run's job and log in {failures}",
    )


def _without_stricter(missed: MissError, stricter: Sequence[Export]) -> MissError:
    """Returns the error of an engine that missed, with the reason that nothing stricter is had."""
    if not stricter or not isinstance(stricter[-1], DisabledRecord):
        return missed
    reason = f"{missed.message}; there is no stricter network: {stricter[-1].reason}"
    return MissError(reason, hint=missed.hint)


def passed(outcome: Outcome, otherwise: str) -> BuildOutput:
    """Returns a build's output.

    Args:
        outcome: Of a build or verification.
        otherwise: What happens to an engine that fails, for the message.

    Raises:
        MissError: Its engine misses its tolerance.
    """
    output = outcome.result
    assert isinstance(output, BuildOutput)
    if output.verification is not None and not output.verification.passed:
        raise MissError(f"{otherwise}: {output.verification.reason}")
    return output
