"""Verifies published engines on a machine that can run them, and promotes or withdraws them.

No engine is built. In the index, only the status of engines changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builders.executors import Executor
from builders.history.failures import Failures
from builders.jobs.messages import BuildOutput, VerificationSpec, VerifyJob
from builders.jobs.progress import Display
from builders.planning import wanted
from builders.publish import records
from builders.publish.candidates import Proposals
from builders.run.job_runner import JobRunner, passed
from zoo.client import selection
from zoo.client.selection import Machine
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry
from zoo.schema.manifest import Manifest
from zoo.schema.records import BuildRecord, FailureReason, FailureStage
from zoo.schema.runtimes import title_of
from zoo.schema.status import concerning, taken_back
from zoo.schema.targets import EngineName, Label, Toolchain, arch_of
from zoo.util.errors import ManifestError, MissError, RepositoryError, SelectionError, ZooError
from zoo.util.names import counted


@dataclass
class Reverified:
    """The outcome of a run, printed at its end.

    Attributes:
        verified: Labels of engines that meet their tolerance.
        withdrawn: From label to reason, of those among them that a person withdrew, and that stay
            withdrawn.
        failed: From label to error: withdrawn, or not run to the end; from model to error, if the
            verdicts on its engines could not be signed.
        elsewhere: From what engines need and this machine lacks to their labels.
    """

    verified: list[str] = field(default_factory=list)
    withdrawn: dict[str, str] = field(default_factory=dict)
    failed: dict[str, ZooError] = field(default_factory=dict)
    elsewhere: dict[str, list[str]] = field(default_factory=dict)


class Reverifier:
    """Verifies published engines on this machine.

    Args:
        repository: Where they are published.
        executor: Runs jobs.
        display: Shows progress.
        failures: Folder that keeps the files of failed jobs.
        machine: What this machine can run.
        proposals: Takes candidates for the index.
    """

    def __init__(
        self,
        repository: Repository,
        executor: Executor,
        display: Display,
        failures: Path,
        machine: Machine,
        proposals: Proposals,
    ) -> None:
        self._repository = repository
        self._proposals = proposals
        self._known = Failures(repository)
        self._jobs = JobRunner(repository, executor, display)
        self._display = display
        self._failures = failures
        self._machine = machine

    def run(
        self,
        manifests: Mapping[str, Manifest],
        broken: Mapping[str, ManifestError],
        models: Collection[str] | None,
        *,
        pending_only: bool,
    ) -> Reverified:
        """Verifies engines and records the verdicts. A failure does not stop the others.

        Args:
            manifests: The models' manifests, which state the tolerances.
            broken: The errors of manifests that can't be read.
            models: Ids of the models; None for all that are published.
            pending_only: Whether to leave out engines that have a verdict.

        Raises:
            SelectionError: There are such engines and this machine can run none of them.
        """
        proven = Reverified()
        chosen = self._entries(models, pending_only=pending_only)
        for model, entries in chosen.items():
            here = [entry for entry in entries if self.can_run(entry)]
            for entry in entries:
                if entry not in here:
                    proven.elsewhere.setdefault(need(entry), []).append(_label(model, entry))
            for entry in here:
                label = _label(model, entry)
                try:
                    if model in broken:
                        raise broken[model]
                    self._verify(label, model, entry, manifests.get(model))
                except ZooError as error:
                    proven.failed[label] = error
                else:
                    proven.verified.append(label)
                    self._tell(label, entry, proven)
            try:
                self._propose(model, {entry.engine.sha256 for entry in here}, chosen)
            except ZooError as error:
                proven.failed[model] = error
        if proven.elsewhere and not (proven.verified or proven.failed):
            self._refuse(proven.elsewhere, "pending" if pending_only else "published")
        return proven

    def _tell(self, label: str, entry: EngineEntry, proven: Reverified) -> None:
        """Says that an engine was verified, and whether a withdrawal by hand is still in force."""
        attestations = self._repository.attestations(entry.engine.sha256)
        archs = dict.fromkeys(map(arch_of, entry.targets))
        in_force = [taken_back(concerning(attestations, arch)) for arch in archs]
        if not all(in_force) or in_force[0] is None:
            self._display.say(f"{label}: verified")
            return
        reason = in_force[0].body.reason or ""
        proven.withdrawn[label] = reason
        command = f".venv/bin/zoo-farm reinstate {label.partition(' ')[0]} {entry.targets[0]}"
        self._display.say(
            f"{label}: verified, but it stays withdrawn until a person reinstates it: {reason}\n"
            f"  {command} --reason '...'"
        )

    def _propose(self, model: str, engines: Collection[str], chosen: Collection[str]) -> None:
        """Proposes a model, and the models whose engines have the same bytes.

        Args:
            model: The model.
            engines: Digests of the engines that were run.
            chosen: Ids of the models of this run, which are proposed in any case.
        """
        if not engines:
            return
        self._proposals.send_again(model)
        for other in self._proposals.send_sharing(engines, model):
            if other not in chosen:
                self._display.say(f"{other}: its engine has the same bytes, and the same verdict")

    def why_not(self, entry: EngineEntry) -> str | None:
        """Returns why this machine can't run an engine, None if it can; whatever its status."""
        return why_not(entry, self._machine)

    def can_run(self, entry: EngineEntry) -> bool:
        """Whether this machine can run an engine."""
        return self.why_not(entry) is None

    def verify(self, model: str, entry: EngineEntry, manifest: Manifest | None) -> None:
        """Runs one engine and attests the verdict; raises what :meth:`run` reports."""
        self._verify(_label(model, entry), model, entry, manifest)

    def _entries(
        self, models: Collection[str] | None, *, pending_only: bool
    ) -> dict[str, list[EngineEntry]]:
        """Returns the engines to verify, by model."""
        return {
            index.model: entries
            for index in self._repository.model_indexes()
            if models is None or index.model in models
            if (entries := [e for e in index.current if not pending_only or e.status == "pending"])
        }

    def _verify(
        self, label: str, model: str, entry: EngineEntry, manifest: Manifest | None
    ) -> None:
        """Runs one engine and attests the verdict.

        Raises:
            ManifestError: There is no manifest to state the tolerance.
            RepositoryError: Its record or a blob is missing or damaged.
            JobError: It could not be run to the end; its status stays.
            VerificationError: It misses its tolerance and is withdrawn.
        """
        repository = self._repository
        record = repository.listed_record(model, entry)
        spec = self._spec(model, record, manifest)
        for blob in (record.engine, spec.golden):
            if not repository.blobs.seems_whole(blob):  # a worker hashes what it fetches from afar
                raise RepositoryError(
                    f"blob {blob.sha256} is missing or damaged: nothing was loaded",
                    hint=".venv/bin/zoo-farm check --repair removes damaged files so that they "
                    "are made again",
                )
        verdict = wanted.verification_inputs(entry.engine.sha256, spec)
        job = VerifyJob(record=record, verification=spec, store=repository.store.url)
        key, file = record.key, entry.record_file.sha256
        try:
            with self._jobs.job(label, job, self._failures) as outcome:
                assert isinstance(outcome.result, BuildOutput)
                records.attest_verification(
                    self._repository, verdict, key, outcome.result, file=file
                )
                passed(outcome, "withdrawn")
        except MissError as error:
            self._known.add(
                record.inputs, spec.tolerance, error.message,
                stage=FailureStage.VERIFY, reason=FailureReason.TOLERANCE,
                targets=record.targets,
            )  # fmt: skip
            raise

    def _spec(self, model: str, record: BuildRecord, manifest: Manifest | None) -> VerificationSpec:
        """Returns how to verify an engine, by the current manifest.

        Raises:
            ManifestError: There is none.
            RepositoryError: The export that the engine was built from is gone.
        """
        if manifest is None:
            raise ManifestError(
                f"{model}: no manifest states the tolerance that the engine must meet",
                hint="--manifests names the folder of manifests that it was published from",
            )
        export = self._repository.export(model, record.export_key)
        if export is None:
            raise RepositoryError(
                f"export {record.export_key} of the engine is gone, and its golden features",
                hint="make zoo exports it again",
            )
        spec = wanted.verification_spec(
            manifest, export, record.inputs.precision, record.inputs.profiles
        )
        # Preprocess as the engine's record states, even if the manifest has changed since.
        return spec.model_copy(update={"preprocess": record.inputs.preprocess})

    def _refuse(self, elsewhere: dict[str, list[str]], status: str) -> None:
        count = sum(map(len, elsewhere.values()))
        raise SelectionError(
            f"this machine can run none of what is {status} ({counted(count, 'engine')}):\n    "
            + "\n    ".join(_lines_of_needs(elsewhere)),
            hint=f"this machine has {_describe(self._machine)}; run this command on a machine "
            "that has what they need",
        )


def why_not(entry: EngineEntry, machine: Machine) -> str | None:
    """Returns why a machine can't run an engine, None if it can; whatever its status."""
    return selection.fit(entry, machine)[1]


def need(entry: EngineEntry) -> str:
    """Returns what an engine needs: ``sm86 with TensorRT-RTX 1.7.1.116``."""
    return f"{' or '.join(Label.joined(entry.targets).archs)} with {_runtime(entry.toolchain)}"


def summarise(proven: Reverified) -> list[str]:
    """Returns the last lines of a run: each failure, what needs another machine, and counts."""
    lines = [f"FAILED {label}: {error}" for label, error in proven.failed.items()]
    lines += [f"needs another machine: {line}" for line in _lines_of_needs(proven.elsewhere)]
    counts = (
        ("verified", len(proven.verified) - len(proven.withdrawn)),
        ("verified, but still withdrawn", len(proven.withdrawn)),
        ("failed", len(proven.failed)),
        ("for other machines", sum(map(len, proven.elsewhere.values()))),
    )
    parts = [f"{count} {what}" for what, count in counts if count]
    return [*lines, ", ".join(parts) or "nothing to verify"]


def _lines_of_needs(elsewhere: Mapping[str, Collection[str]]) -> list[str]:
    """Returns a line per GPU and runtime: how many engines need them, of which models."""
    lines = []
    for what, labels in sorted(elsewhere.items()):
        models = dict.fromkeys(EngineName.read(label).model for label in labels)
        lines.append(f"{what}: {len(labels)} of {', '.join(models)}")
    return lines


def _label(model: str, entry: EngineEntry) -> str:
    """Returns model and engine, ``resnet50 sm80+sm86-rtx1.7-fp16``."""
    return str(EngineName(model, Label.joined(entry.targets)))


def _runtime(toolchain: Toolchain) -> str:
    return f"{title_of(toolchain.kind)} {toolchain.version}"


def _describe(machine: Machine) -> str:
    return f"{', '.join(machine.archs)} with " + (
        ", ".join(map(_runtime, machine.toolchains)) or "no runtime"
    )
