"""An engine's page: requirements, commands, verification, provenance and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from zoo.catalog import facts
from zoo.catalog.gpus import arch_name, products_of
from zoo.client.recommendation import Verdict, verdicts
from zoo.schema.closed import Unknown, complete
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.manifest import sides
from zoo.schema.records import Attestation, AttestationKind, BuildRecord, ExportRecord
from zoo.schema.runtimes import RUNTIME_FACTS
from zoo.schema.targets import RuntimeKind, place_of
from zoo.schema.targets_table import target_table
from zoo.util.loading import parse_json


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit that an engine was built from.

    Attributes:
        git: Its hash.
        changed: Whether the checkout had local changes.
    """

    git: str
    changed: bool

    def __str__(self) -> str:
        return f"{self.git}{', with local changes' if self.changed else ''}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the repository holds about an engine besides its index entry.

    Attributes:
        record: Its build record, None if the repository does not have it.
        export: The record of the ONNX export it was built from, None if unknown.
        attestations: The results of verifying and benchmarking it, oldest first.
        commit: The commit of the checkout that built it, None if no provenance names one.
    """

    record: BuildRecord | None = None
    export: ExportRecord | None = None
    attestations: tuple[Attestation, ...] = ()
    commit: Commit | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """An entry of an engine's history.

    Attributes:
        time: ISO 8601 in UTC.
        what: What happened.
        detail: On which machine, for which targets or why.
        page: The page of the engine that the entry is about, if it is another one.
    """

    time: str
    what: str
    detail: str
    page: str | None = None


def requirements(engine: EngineEntry, record: BuildRecord | None) -> list[tuple[str, str]]:
    """Returns the requirements of a machine that runs an engine, as pairs of name and text."""
    toolchain = engine.toolchain
    needs = [("Runtime", f"{facts.runtime_words(engine)}, {_exactness(toolchain.kind)}")]
    if toolchain.cuda is not None:
        needs.append(("CUDA", str(toolchain.cuda)))
        if driver := _driver(engine):
            needs.append(("NVIDIA driver", f"{driver} or later"))
    for arch in facts.archs_of(engine):
        names = ", ".join(products_of(arch))
        text = "none; runs on the CPU" if arch == "cpu" else f"{arch}, {arch_name(arch)}"
        needs.append(("GPU", f"{text}: {names}" if names else text))
    needs.append(("System", f"{toolchain.os}, {toolchain.machine}"))
    batch = engine.batch
    needs.append(("Batch", f"{batch.min} to {batch.max} images, optimised for {batch.opt}"))
    height, width = sides(engine.preprocess.input_size)
    needs.append(("Input", f"batch × 3 × {height} × {width}, RGB, scaled and normalised"))
    needs.append(("Output", f"batch × {engine.feature_dim:,}"))
    memory = record.facts.device_memory if record else None
    if memory:
        text = ", ".join(facts.mib(one) for one in memory)
        needs.append(("GPU memory besides the weights", f"{text}, per profile"))
    return needs


def _exactness(runtime: RuntimeKind) -> str:
    if isinstance(runtime, Unknown):
        return "exactly this version"
    if RUNTIME_FACTS[runtime].reads_older:
        return "this release or later"
    return "exactly this build; any other rejects the engine"


def _driver(engine: EngineEntry) -> int | None:
    line = target_table().line.get(str(engine.toolchain.line))
    archs = facts.archs_of(engine)
    if line is None or not archs or archs[0] not in target_table().arch:
        return None
    return line.cell(archs[0]).driver.get(engine.toolchain.cuda or 0)


def advice(model: ModelIndex, entries: Sequence[EngineEntry]) -> list[tuple[str, Verdict]]:
    """Returns the verdicts on an engine of a lowered precision, each with its place."""
    found = verdicts(model.model_copy(update={"engines": model.current}))
    places = dict.fromkeys(place_of(label) for entry in entries for label in entry.targets)
    precision = str(entries[0].precision)
    return [
        (place, found[place][precision])
        for place in places
        if entries[0].superseded is None and precision in found.get(place, {})
    ]


def provenance(engine: EngineEntry, origin: Origin) -> list[tuple[str, str]]:
    """Returns where an engine comes from, as far as the repository's records say.

    Returns:
        Pairs of name and text; digests are given in full.
    """
    lines = [("Build key", engine.record)]
    record, export = origin.record, origin.export
    if record is not None:
        lines += [
            ("Built", f"{facts.when(record.created)} UTC"),
            ("ONNX", record.inputs.onnx),
            ("Export key", record.export_key),
            ("Golden features", record.golden.sha256),
            ("Weights", record.weights),
        ]
    if export is not None:
        lines.append(("Weights, SHA-256", export.inputs.weights.digest))
        lines += [("Export", note) for note in export.notes]
        lines.append(("Parameters", f"{export.parameters:,}"))
        lines.append(("Exported by", _named(export.inputs.versions)))
    if record is not None and record.inputs.options:
        lines.append(("Builder options", _named(record.inputs.options)))
    if origin.commit is not None:
        lines.append(("Commit", str(origin.commit)))
    if record is not None and record.cost.seconds is not None:
        memory = record.cost.peak_memory
        peak = f", {facts.mib(memory)} peak memory" if memory is not None else ""
        lines.append(("Build cost", f"{record.cost.seconds:,.1f} s{peak}"))
    return lines


def _named(values: Mapping[str, JsonValue]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


def commit_of(statement: bytes) -> Commit | None:
    """Returns the commit that an in-toto statement names, None if it has another shape."""
    try:
        version: Any = parse_json(statement)
    except (ValueError, RecursionError):
        return None
    for name in ("predicate", "runDetails", "builder", "version"):
        version = version.get(name) if isinstance(version, dict) else None
    if not isinstance(version, dict) or not version.get("git"):
        return None
    return Commit(git=str(version["git"]), changed=version.get("changed") == "true")


_EVENTS: Mapping[AttestationKind, str] = complete(
    AttestationKind,
    {
        AttestationKind.VERIFIED: "Verified",
        AttestationKind.BENCHMARKED: "Benchmarked",
        AttestationKind.COMPARED: "Benchmarked against PyTorch",
        AttestationKind.PENDING: "Waiting for its GPU",
        AttestationKind.WITHDRAWN: "Withdrawn",
        AttestationKind.REINSTATED: "Reinstated",
    },
)


def _event(kind: AttestationKind | Unknown) -> str:
    return str(kind) if isinstance(kind, Unknown) else _EVENTS[kind]


def history(
    model: ModelIndex, entries: Sequence[EngineEntry], attestations: Sequence[Attestation]
) -> list[Event]:
    """Returns an engine's history, the engines before and after it included; newest first."""
    first = entries[0]
    events = [Event(time=first.created, what="Built", detail=facts.runtime_words(first))]
    stated = {name for entry in entries for name in entry.attested}
    for attestation in attestations:
        if stated and attestation.short not in stated:
            continue  # left in the store by somebody whom the publisher does not believe
        reason = attestation.body.reason
        machine = attestation.machine
        where = "by hand" if machine.empty else facts.machine_words(machine)
        detail = f"{reason} ({where})" if reason else where
        events.append(Event(time=attestation.time, what=_event(attestation.kind), detail=detail))
    for entry in entries:
        if entry.superseded is not None:
            detail = f"for {', '.join(entry.targets)}"
            events.append(Event(time=entry.superseded, what="Superseded", detail=detail))
    labels = {label for entry in entries for label in entry.targets}
    for record, others in facts.by_record(model.engines).items():
        common = labels & {label for other in others for label in other.targets}
        if record != first.record and common:
            events.append(
                Event(
                    time=others[0].created,
                    what="Another engine was built",
                    detail=f"for {', '.join(sorted(common))}",
                    page=f"{record[:16]}.html",
                )
            )
    return sorted(events, key=lambda event: event.time, reverse=True)
