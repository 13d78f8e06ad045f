"""A repository with everything that manifests and the targets table allow. Nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from support.records import (
    attestation,
    blob,
    build_record,
    export_record,
    machine,
    toolchain,
    verified_batch,
)

from builders import inputs, listing, plan, weights
from builders.backends import get_backend
from builders.inputs import Form
from builders.places import Places
from builders.plan import Wanted
from zoo.digest import sha256_json
from zoo.index import Candidate, Index, IndexRow, index_row
from zoo.layout import export_key, record_key
from zoo.manifest import Manifest
from zoo.record import BuildRecord, ExportRecord
from zoo.repository import Repository
from zoo.target import Arch, gpu_lines, served_archs

CALIBRATION = "some photos"
MINUTE = 60.0
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def everywhere() -> Places:
    """Every runtime line, on every GPU that it serves, on machines that are elsewhere."""
    lines = []
    for line in gpu_lines():
        chain = toolchain(line.kind, f"{line.version}.0.1", cuda=13)
        lines.append({Arch(name): chain for name in served_archs(line)})
    archs = frozenset(arch for one in lines for arch in one)
    return Places(lines=tuple(lines), elsewhere=archs, here=frozenset())


def publish_all(repository: Repository, manifests: Mapping[str, Manifest], places: Places) -> int:
    """Publishes every engine of some models, seeded; returns how many targets they serve."""
    repository.claim("dry-run")
    rows, count = [], 0
    for manifest in manifests.values():
        wanted = [
            one for line in places.lines for one in plan.wanted_engines(manifest, dict(line), None)
        ]
        count += sum(len(one.targets) for one in wanted)
        keys = tuple(_publish(repository, manifest, one, places) for one in wanted)
        rows.append(_list(repository, manifest, keys))
    repository.store.put("index.json", Index(kind="dry-run", models=tuple(rows)).to_json())
    return count


def _list(repository: Repository, manifest: Manifest, keys: Iterable[str]) -> IndexRow:
    identity = weights.identify(manifest, "seeded")
    card = listing.model_card(manifest, identity)
    candidate = Candidate(card=card, weights=identity, records=tuple(keys))
    made = listing.model_index(repository, candidate, None, NOW)
    repository.store.put(f"index/{manifest.id}.json", made.to_json())
    return index_row(made, made.to_json())


def _publish(repository: Repository, manifest: Manifest, wanted: Wanted, places: Places) -> str:
    form = Form.for_line(wanted.toolchain.line, wanted.precision)
    identity = weights.identify(manifest, "seeded")
    asked = inputs.export_inputs(manifest, identity, form, CALIBRATION)
    export = export_record(
        inputs=asked,
        onnx=blob(sha256=sha256_json(["onnx", asked.key]), size=10_000_000),
        largest_tensor=100_000,
        cost={"seconds": MINUTE},
    )
    repository.store.put(export_key(manifest.id, asked.key), export.to_json())
    options = get_backend(wanted.toolchain.kind).options(wanted.toolchain, {})
    build = plan.build_inputs(manifest, wanted, export, options)
    engine = blob(sha256=sha256_json(["engine", build.key]), size=20 * 2**20)
    record = build_record(
        inputs=build,
        export_key=asked.key,
        targets=tuple(map(str, wanted.targets)),
        engine=engine,
        golden=export.golden,
        feature_dim=manifest.backbone.feature_dim,
        dry_run=True,
        licence=manifest.licence,
        weights=identity.source,
        cost={"seconds": 2 * MINUTE, "proof_seconds": MINUTE},
    )
    repository.store.put(record_key(manifest.id, build.key), record.to_json())
    for arch in wanted.archs:
        _attest(repository, manifest, record, export, arch, proven=bool(places.runs_on(wanted)))
    return build.key


def _attest(
    repository: Repository,
    manifest: Manifest,
    record: BuildRecord,
    export: ExportRecord,
    arch: Arch,
    *,
    proven: bool,
) -> None:
    prove = plan.proof(manifest, export, record.inputs.precision, record.inputs.profiles)
    asked = plan.verification_inputs(record.engine.sha256, prove, inputs.VERIFICATION_METHOD)
    rows = [verified_batch(batch, worst_relative_error=1e-4) for batch in prove.batches]
    capability = ".".join(map(str, arch.compute_capability))
    repository.attest(
        attestation(
            "verified" if proven else "pending",
            engine=record.engine.sha256,
            key=asked.key,
            machine=machine(cpu=None, gpu=f"a GPU of {arch}", compute_capability=capability),
            body={"batches": rows, "tolerance": asked.tolerance} if proven else {"reason": "r"},
        )
    )
