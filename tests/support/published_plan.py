"""A repository with everything that manifests and the targets table allow. Nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from builders import weights
from builders.backends import get_backend
from builders.planning import wanted as plan
from builders.planning.wanted import Wanted
from builders.publish import index
from builders.recipe import export_form
from builders.recipe.export_form import Form
from builders.toolchains.elsewhere import Places
from builders.weights.mode import WeightsMode
from support import records
from support.wants_everything import CALIBRATION
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, Index, IndexRow, index_row
from zoo.schema.layout import export_key, record_key
from zoo.schema.manifest import Manifest
from zoo.schema.records import BuildRecord, ExportRecord, Kind
from zoo.schema.targets import Arch
from zoo.util.digest import sha256_json

MINUTE = 60.0
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def publish_all(
    repository: Repository,
    manifests: Mapping[str, Manifest],
    places: Places,
    *,
    earlier: bool = False,
) -> int:
    """Publishes every engine of some models, seeded; returns how many targets they serve.

    Args:
        repository: An empty one.
        manifests: The models.
        places: Where engines are built and run.
        earlier: Whether to name attestations as earlier versions did.
    """
    repository.claim(Kind.DRY_RUN)
    rows, count = [], 0
    for manifest in manifests.values():
        wanted = [
            one for line in places.lines for one in plan.wanted_engines(manifest, dict(line), None)
        ]
        count += sum(len(one.targets) for one in wanted)
        keys = tuple(_publish(repository, manifest, one, places, earlier=earlier) for one in wanted)
        rows.append(_list(repository, manifest, keys))
    repository.store.put("index.json", Index(kind="dry-run", models=tuple(rows)).to_json())
    return count


def _list(repository: Repository, manifest: Manifest, keys: Iterable[str]) -> IndexRow:
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    card = index.model_card(manifest, identity)
    candidate = Candidate(card=card, weights=identity, records=tuple(keys))
    made = index.model_index(repository, candidate, None, NOW)
    repository.store.put(f"index/{manifest.id}.json", made.to_json())
    return index_row(made, made.to_json())


def _publish(
    repository: Repository, manifest: Manifest, wanted: Wanted, places: Places, *, earlier: bool
) -> str:
    form = Form.for_line(wanted.toolchain.line, wanted.precision)
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    asked = export_form.export_inputs(manifest, identity, form, CALIBRATION.name)
    export = records.export_record(
        inputs=asked,
        onnx=records.blob(sha256=sha256_json(["onnx", asked.key]), size=10_000_000),
        golden=records.blob(sha256=sha256_json("golden"), size=1000),
        largest_tensor=100_000,
        cost={"seconds": MINUTE},
    )
    repository.store.put(export_key(manifest.id, asked.key), export.to_json())
    options = get_backend(wanted.toolchain.kind).options(wanted.toolchain, {})
    build = plan.build_inputs(manifest, wanted, export, options)
    engine = records.blob(sha256=sha256_json(["engine", build.key]), size=20 * 2**20)
    record = records.build_record(
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
        _attest(
            repository,
            manifest,
            record,
            export,
            arch,
            proven=bool(places.runs_on(wanted.archs, wanted.toolchain)),
            earlier=earlier,
        )
    return build.key


def _attest(
    repository: Repository,
    manifest: Manifest,
    record: BuildRecord,
    export: ExportRecord,
    arch: Arch,
    *,
    proven: bool,
    earlier: bool,
) -> None:
    spec = plan.verification_spec(manifest, export, record.inputs.precision, record.inputs.profiles)
    asked = plan.verification_inputs(record.engine.sha256, spec)
    rows = [records.verified_batch(batch, worst_relative_error=1e-4) for batch in spec.batches]
    capability = ".".join(map(str, arch.compute_capability))
    repository.attest(
        records.attestation(
            "verified" if proven else "pending",
            engine=record.engine.sha256,
            key=asked.key,
            machine=records.machine(
                cpu=None, gpu=f"a GPU of {arch}", compute_capability=capability
            ),
            body={"batches": rows, "tolerance": asked.tolerance} if proven else {"reason": "r"},
        ),
        None if earlier else record.key,
    )
