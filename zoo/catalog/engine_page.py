"""An engine's page: what it needs, how to get and use it, what proves it, where it is from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_never

from zoo.catalog import facts
from zoo.catalog.gpus import arch_name, products_of
from zoo.catalog.place import Place
from zoo.schema.closed import Unknown, complete
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.records import Attestation, AttestationKind, BuildRecord, ExportRecord, Status
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime
from zoo.schema.targets import RuntimeKind, on_gpu
from zoo.schema.targets_table import target_table


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the repository's files say of an engine beside the index.

    Attributes:
        record: Its build record, None where the repository has not got it.
        export: What it was built from.
        attestations: What was found out about it, oldest first.
        provenance: Its in-toto statement, empty where there is none.
    """

    record: BuildRecord | None = None
    export: ExportRecord | None = None
    attestations: tuple[Attestation, ...] = ()
    provenance: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """Lines to copy.

    Attributes:
        title: What they do.
        text: The lines.
        language: ``sh`` or ``python``.
        note: What else to know, or None.
    """

    title: str
    text: str
    language: str = "sh"
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of an engine's history."""

    time: str
    what: str
    detail: str
    page: str | None = None


def requirements(engine: EngineEntry, record: BuildRecord | None) -> list[tuple[str, str]]:
    """Returns what a machine needs to run an engine: name to what."""
    toolchain = engine.toolchain
    found = [("Runtime", f"{facts.runtime_words(engine)}, {_exactness(toolchain.kind)}")]
    if toolchain.cuda is not None:
        found.append(("CUDA", str(toolchain.cuda)))
        if driver := _driver(engine):
            found.append(("NVIDIA driver", f"{driver} or later"))
    for arch in facts.archs_of(engine):
        names = ", ".join(products_of(arch))
        text = "none: it runs on CPUs" if arch == "cpu" else f"{arch}, {arch_name(arch)}"
        found.append(("GPU", f"{text}: {names}" if names else text))
    found.append(("System", f"{toolchain.os}, {toolchain.machine}"))
    batch = engine.batch
    found.append(("Batch", f"{batch.min} to {batch.max} images, best at {batch.opt}"))
    size = engine.preprocess.input_size
    found.append(("Input", f"batch × 3 × {size} × {size}, RGB, scaled and normalised"))
    found.append(("Output", f"batch × {engine.feature_dim:,}"))
    memory = record.facts.device_memory if record else None
    if memory:
        text = ", ".join(facts.mib(one) for one in memory)
        found.append(("GPU memory beside the weights", f"{text}, by profile"))
    return found


def _exactness(runtime: RuntimeKind) -> str:
    if isinstance(runtime, Unknown):
        return "exactly this one"
    if RUNTIME_FACTS[runtime].reads_older:
        return "this release or a later one"
    return "exactly this build: another refuses the engine"


def _driver(engine: EngineEntry) -> int | None:
    line = target_table().line.get(str(engine.toolchain.line))
    archs = facts.archs_of(engine)
    if line is None or not archs or archs[0] not in target_table().arch:
        return None
    return line.cell(archs[0]).driver.get(engine.toolchain.cuda or 0)


def commands(model: ModelIndex, engine: EngineEntry, place: Place) -> list[Command]:
    """Returns how to fetch and use an engine; nothing for one that is withdrawn."""
    if engine.status == Status.WITHDRAWN or not engine.targets:
        return []
    label = engine.targets[0]
    name = shlex.quote(file_name(model.model, engine))
    options = "".join(
        f" {option}"
        for option, wanted in (
            ("--allow-pending", engine.status == Status.PENDING),
            ("--allow-seeded", engine.dry_run),
        )
        if wanted
    )
    chosen = f"--store {shlex.quote(place.store)} --target {shlex.quote(label)}{options}"
    digest = engine.engine.sha256
    kind = engine.toolchain.kind
    extra = "" if isinstance(kind, Unknown) else f"[{RUNTIME_FACTS[kind].extra}]"
    others = ", ".join(engine.targets[1:])
    also = f"It serves {others} too: --target takes any of them. " if others else ""
    return [
        Command(
            title="The client",
            text=f"pip install 'caft-zoo{extra}'",
        ),
        Command(
            title="Fetch, with its signature checked",
            text=f"zoo pull {model.model} {chosen} -o {name}",
            note=f"{also}The client checks who signed the index, then hash and length, before "
            "anything is loaded. The first time it also wants --trust root.json: ask whoever runs "
            "the repository for that file or its SHA-256, by another way than this page.",
        ),
        Command(title="Features of a photo", text=f"zoo run {model.model} photo.jpg {chosen}"),
        Command(title="Python", text=_python(model, engine, place), language="python"),
        Command(
            title="Without the client",
            text=f'{place.fetch(digest, name)}\necho "{digest}  {name}" | sha256sum -c',
            note="That checks the bytes against this page; who made them, only the client checks.",
        ),
        *_native(engine, name),
    ]


def file_name(model: str, engine: EngineEntry) -> str:
    """Returns what an engine's file is called where it is copied to."""
    kind = engine.toolchain.kind
    suffix = RUNTIME_FACTS[kind].suffix if not isinstance(kind, Unknown) else ".engine"
    label = engine.targets[0] if engine.targets else engine.record[:16]
    return f"{model}-{label}{suffix}"


def _python(model: ModelIndex, engine: EngineEntry, place: Place) -> str:
    extra = ", allow_pending=True" * (engine.status == Status.PENDING)
    extra += ", allow_seeded=True" * engine.dry_run
    target, store = json.dumps(engine.targets[0]), json.dumps(place.store)
    return (
        "import zoo\n\n"
        f'extractor = zoo.load("{model.model}", target={target}, store={store}{extra})\n'
        f'features = extractor(["photo.jpg"])  # (1, {engine.feature_dim}), float32'
    )


def _native(engine: EngineEntry, name: str) -> list[Command]:
    """What reads the engine without this project; nothing of a runtime that is not known."""
    kind = engine.toolchain.kind
    if isinstance(kind, Unknown):
        return []
    match kind:
        case Runtime.ORT:
            return [_in_onnxruntime(engine, name)]
        case Runtime.RTX:
            return [_in_tensorrt(engine, name, "tensorrt_rtx")]
        case Runtime.TRT:
            return [_in_tensorrt(engine, name, "trtexec")]
        case _:
            assert_never(kind)


def _in_onnxruntime(engine: EngineEntry, name: str) -> Command:
    size = engine.preprocess.input_size
    return Command(
        title="Without this project",
        language="python",
        text=f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{name}")\n'
        'features = session.run(["features"], {"images": batch})  '
        f"# (N, 3, {size}, {size}), float32",
    )


def _in_tensorrt(engine: EngineEntry, name: str, tool: str) -> Command:
    size, batch = engine.preprocess.input_size, engine.batch.opt
    return Command(
        title="C++",
        text=f"{tool} --loadEngine={name} --shapes=images:{batch}x3x{size}x{size}",
        note=f"{tool} comes with {facts.runtime_words(engine)} and times the engine. In your own "
        "program: IRuntime::deserializeCudaEngine on the file's bytes; the input is called images, "
        "the output features.",
    )


def rebuild(model: ModelIndex, engine: EngineEntry, record: BuildRecord | None) -> Command:
    """Returns the command that builds the same again from a checkout."""
    archs = ",".join(record.inputs.archs if record else facts.archs_of(engine))
    line = engine.toolchain.line
    words = [f"make zoo MODELS={model.model} GPU={shlex.quote(archs)}"]
    if on_gpu(line.kind):
        words.append(f"TRT={line.asked}")
    words.append(f"PRECISION={shlex.quote(engine.precision)}")
    if engine.dry_run:
        words.append("WEIGHTS=seeded")
    return Command(
        title="Build it again",
        text=" ".join(words),
        note="Engines are not the same to the byte when they are built twice. They are named by "
        "what goes in, and checked by what comes out.",
    )


def provenance(
    engine: EngineEntry, origin: Origin
) -> list[tuple[str, str]]:  # name to what, the digests whole
    """Returns where an engine comes from, as far as the repository tells."""
    found = [("Build key", engine.record)]
    record, export = origin.record, origin.export
    if record is not None:
        found += [
            ("Built", f"{facts.when(record.created)} UTC"),
            ("ONNX", record.inputs.onnx),
            ("Export key", record.export_key),
            ("Golden features", record.golden.sha256),
            ("Weights", record.weights),
        ]
    if export is not None:
        found.append(("Weights, SHA-256", export.inputs.weights.digest))
        found.append(("Parameters", f"{export.parameters:,}"))
        found.append(("Exported by", _named(export.inputs.versions)))
    if record is not None and record.inputs.options:
        found.append(("Builder options", _named(record.inputs.options)))
    if commit := _commit(origin.provenance):
        found.append(("Checkout", commit))
    if record is not None and record.cost.seconds is not None:
        memory = record.cost.peak_memory
        peak = f", {facts.mib(memory)} of memory at most" if memory is not None else ""
        found.append(("Cost of the build", f"{record.cost.seconds:,.1f} s{peak}"))
    return found


def _named(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


def _commit(statement: dict[str, Any] | None) -> str | None:
    """Returns the commit that an in-toto statement names, None where it has another shape."""
    found: Any = statement
    for name in ("predicate", "runDetails", "builder", "version"):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not found.get("git"):
        return None
    return f"{found['git']}{', with changes' if found.get('changed') == 'true' else ''}"


_DID: Mapping[AttestationKind, str] = complete(
    AttestationKind,
    {
        AttestationKind.VERIFIED: "Verified",
        AttestationKind.BENCHMARKED: "Timed",
        AttestationKind.COMPARED: "Put beside PyTorch",
        AttestationKind.PENDING: "Waiting for its GPU",
        AttestationKind.WITHDRAWN: "Withdrawn",
    },
)


def _did(kind: AttestationKind | Unknown) -> str:
    return str(kind) if isinstance(kind, Unknown) else _DID[kind]


def history(
    model: ModelIndex, entries: Sequence[EngineEntry], attestations: Sequence[Attestation]
) -> list[Event]:
    """Returns what happened to an engine, and which came before and after it; newest first."""
    first = entries[0]
    events = [Event(time=first.created, what="Built", detail=facts.runtime_words(first))]
    for one in attestations:
        reason = one.body.reason
        where = "by hand" if one.machine.empty else facts.machine_words(one.machine)
        detail = f"{reason} ({where})" if reason else where
        events.append(Event(time=one.time, what=_did(one.kind), detail=detail))
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
