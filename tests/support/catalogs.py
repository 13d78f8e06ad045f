"""Repositories made up for the catalog: every state that a page shows, and as many as it takes.

Nothing in them was measured. They never leave the tests.
"""

from __future__ import annotations

from typing import Any

from builders.publish.entries import engine_entries
from support import records
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry, Index, ModelIndex, index_row
from zoo.schema.records import Blob, BuildRecord, ExportRecord, Kind
from zoo.schema.targets import Target
from zoo.stores import MemoryStore, ObjectStore
from zoo.util.digest import sha256_json

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e{{ 7*7 }}</title><!--"
CPU = records.machine(cores=2)
GPUS = {"sm86": ("A made-up 3080", "8.6"), "sm89": ("A made-up L4", "8.9"), "sm90": ("A", "9.0")}


class Zoo:
    """A repository that a test fills."""

    def __init__(self, store: ObjectStore | None = None) -> None:
        self.repository = Repository(store or MemoryStore())
        self.repository.claim(Kind.RELEASE)
        self.models: dict[str, ModelIndex] = {}

    def blob(self, data: bytes) -> Blob:
        return records.put_blob(self.repository.store, data)

    def export(self, name: str, **versions: str) -> ExportRecord:
        inputs = records.export_inputs(model=name, versions={"torch": "2.13.0", **versions})
        record = records.export_record(
            inputs=inputs,
            onnx=self.blob(f"onnx {inputs.key}".encode()),
            golden=self.blob(b"golden"),
        )
        self.repository.add_export(record)
        return record

    def record(self, name: str, *labels: str, **changes: Any) -> BuildRecord:
        """Puts an engine there; it is in no index yet."""
        targets = [Target.parse(label) for label in labels]
        line = targets[0].line
        version = changes.pop("version", f"{line.version}.0")
        export = changes.pop("export", None) or self.export(name)
        cuda = None if line.kind == "ort" else 13
        inputs = records.build_inputs(
            model=name,
            onnx=export.onnx.sha256,
            archs=tuple(target.arch.name for target in targets),
            precision=targets[0].precision,
            toolchain=records.toolchain(line.kind, version, cuda=cuda),
            options={"level": 3},
        )
        values: dict[str, Any] = {
            "inputs": inputs,
            "export_key": export.inputs.key,
            "targets": labels,
            "engine": self.blob(f"engine {inputs.key}".encode()),
            "golden": export.golden,
            "files": {"LICENSE": self.blob(b"a licence")},
        }
        record = records.build_record(**{**values, **changes})
        self.repository.add_record(record)
        return record

    def attest(self, record: BuildRecord, kind: str, body: dict[str, Any], arch: str) -> None:
        name, capability = GPUS.get(arch, ("", ""))
        gpu = records.machine(cpu="C", gpu=name, compute_capability=capability, driver="580.1")
        self.repository.attest(
            records.attestation(
                kind,
                engine=record.engine.sha256,
                time=f"2026-01-01T00:0{len(kind) % 10}:00.000000Z",
                machine=CPU if arch == "cpu" else gpu,
                body=body,
            )
        )

    def verify(self, record: BuildRecord, arch: str = "cpu", *, cosine: float = 0.99999) -> None:
        """Says of an engine that it was run, and how fast and how near it was."""
        rows = [
            {
                "batch": batch, "worst_cosine": cosine, "median_cosine": 0.999999,
                "worst_relative_error": 0.001, "neighbours": 0.98,
            }
            for batch in (1, 4, 16)
        ]  # fmt: skip
        times = [records.timed_batch(batch, 2.0 * batch) for batch in (1, 4, 16)]
        self.attest(record, "verified", {"batches": rows, "tolerance": {"cosine": 0.9999}}, arch)
        self.attest(record, "benchmarked", {"batches": times}, arch)

    def entries(self, name: str, *built: BuildRecord) -> list[EngineEntry]:
        card = records.model_card(model=name)
        return [one for record in built for one in engine_entries(self.repository, card, record)]

    def publish(self, name: str, *entries: EngineEntry, **changes: Any) -> ModelIndex:
        """Writes the index of a model, unsigned, and that of all."""
        self.models[name] = made = records.model_index(*entries, model=name, **changes)
        rows = []
        for one in self.models.values():
            data = one.to_json()
            self.repository.store.put(f"index/{one.model}.json", data)
            rows.append(index_row(one, data))
        index = Index(kind=self.repository.kind() or "release", models=tuple(rows))
        self.repository.store.put("index.json", index.to_json())
        return made


def every_state(store: ObjectStore | None = None) -> Zoo:
    """Two models with engines in every state that a page shows."""
    zoo = Zoo(store)
    fast, big = "mini_net", "maxi_net"
    cpu = zoo.record(fast, "cpu-ort1.32-fp32")
    zoo.verify(cpu)
    slow = [{"batch": 1, "engine_ms": 3.0, "pytorch_ms": 2.0}]
    zoo.attest(cpu, "compared", {"batches": slow, "pytorch": "torch, eager"}, "cpu")
    shared = zoo.record(fast, "sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16", version="1.7.1.116")
    zoo.verify(shared, "sm86", cosine=0.9991)
    zoo.attest(shared, "pending", {"reason": "not run on that GPU"}, "sm89")
    zoo.verify(shared, "sm86", cosine=0.9991)
    gone = zoo.record(fast, "sm90-trt11.4-fp16")
    zoo.attest(gone, "withdrawn", {"reason": "row 3 is wrong", "by": "a maintainer"}, "sm90")
    old = zoo.record(fast, "cpu-ort1.32-fp32", version="1.32.1")
    zoo.verify(old, cosine=0.99998)
    superseded = [
        one.model_copy(update={"superseded": "2026-01-02T00:00:00.000000Z"})
        for one in zoo.entries(fast, old)
    ]
    text = records.catalog_text(
        title="MiniNet", summary="Small, and made up", characteristics=("c",), use_case="Tests"
    )
    disabled = records.disabled_cell("cpu-ort1.32-int8", reason="no int8 keeps the floors")
    zoo.publish(
        fast, *zoo.entries(fast, cpu, shared, gone), *superseded, catalog=text, disabled=(disabled,)
    )
    seeded = zoo.record(
        big, "sm86-trt11.4-fp32", dry_run=True, precision_status="unproven",
        created="2026-01-03T00:00:00.000000Z",
    )  # fmt: skip
    zoo.attest(seeded, "pending", {"reason": "not run on that GPU"}, "sm86")
    zoo.publish(
        big, *zoo.entries(big, seeded), feature_dim=2048, family="maxi",
        catalog=text.model_copy(update={"title": "MaxiNet"}),
    )  # fmt: skip
    return zoo


def hostile() -> Zoo:
    """A model whose manifest and records are written by somebody who means ill."""
    zoo = Zoo()
    record = zoo.record(
        "m", "cpu-ort1.32-fp32", weights=HOSTILE, licence=HOSTILE, facts={"x": HOSTILE}
    )
    zoo.verify(record)
    zoo.attest(record, "withdrawn", {"reason": HOSTILE, "by": HOSTILE}, "cpu")
    (entry,) = zoo.entries("m", record)
    bad = entry.model_copy(update={"targets": (HOSTILE, "cpu-ort1.32-fp32"), "precision": HOSTILE})
    text = records.catalog_text(
        title=HOSTILE, summary="x" * 600, characteristics=(HOSTILE,), use_case=HOSTILE
    )
    zoo.publish("m", bad, catalog=text, weights="y" * 10_000 + HOSTILE, licence=HOSTILE,
                origin="javascript:alert(1)", timm_name=HOSTILE)  # fmt: skip
    return zoo


def many(models: int, each: int) -> list[ModelIndex]:
    """Models with many engines, as the index has them; nothing of them is in a repository."""
    found = []
    archs = ["cpu", "sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120"]
    rows = [{"batch": b, "latency_ms": 1.5, "images_per_second": 123.4 * b} for b in (1, 64, 256)]
    for number in range(models):
        engines = []
        for count in range(each):
            precision = ("fp32", "fp16", "bf16", "int8")[count // len(archs) % 4]
            arch, key = archs[count % len(archs)], sha256_json([number, count])
            kind, line = ("ort", "ort1.32") if arch == "cpu" else ("trt", "trt11.4")
            toolchain = records.toolchain(kind, "11.4.0.12", cuda=13)
            batches = [{"batch": 1, "worst_cosine": 0.99912345, "worst_relative_error": 0.01}]
            engines.append(
                records.engine_entry(
                    f"{arch}-{line}-{precision}",
                    record=key,
                    record_file=records.blob(sha256=key, size=1),
                    engine=records.blob(sha256=key, size=12_345_678 + count),
                    toolchain=toolchain,
                    batch={"min": 1, "opt": 4, "max": 256},
                    verification=records.verification(*batches),
                    benchmark=records.benchmark(*rows, machine=records.machine(cpu=None, gpu=arch)),
                )
            )
        text = records.catalog_text(
            title=f"Backbone number {number}", summary="A sentence of about the length that "
            "summaries have: what it is made of and what it is for.",
            characteristics=("c",), use_case="u",
        )  # fmt: skip
        found.append(records.model_index(*engines, model=f"backbone_number_{number}", catalog=text))
    return found
