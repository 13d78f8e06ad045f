"""A plan: what is published, what would be made and why, what that takes. Nothing is written."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.goldens import assert_golden, raises_golden
from support.models import SMALL
from support.published_plan import publish_all
from support.records import attestation
from support.wants_everything import everywhere, request

from builders.history.failures import NIGHTS, Failures
from builders.photos.calibration import CalibrationSet
from builders.planning.decision import Action
from builders.planning.explain import differences
from builders.planning.plan import plan_farm
from builders.planning.report import FarmPlan, PlannedEngine, make_plan, matrix, to_text
from builders.toolchains.elsewhere import Places, find_places
from zoo.repository.published import published_model
from zoo.repository.repository import Repository
from zoo.schema.floors import OwnTolerance
from zoo.schema.manifest import Manifest
from zoo.schema.published import PublishedModel
from zoo.schema.records import Blob, BuildRecord, FailureReason, FailureStage
from zoo.schema.targets import Arch, Label, RuntimeLine
from zoo.stores import Entry, MemoryStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RepositoryError, TargetError, UsageError

PLACES = everywhere()
OTHER_PHOTOS = CalibrationSet(source="folder", paths=(), digests=("0" * 64,))


class CountingStore(MemoryStore):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        self.asked["get"] += 1
        return super().get(key, limit=limit)

    def list(self, prefix: str) -> Iterator[Entry]:
        self.asked["list"] += 1
        return super().list(prefix)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        self.asked["put"] += 1
        return super().put(key, data, if_absent=if_absent)


@pytest.fixture(scope="module")
def one(manifests: dict[str, Manifest]) -> dict[str, Manifest]:
    return {SMALL: manifests[SMALL]}


@pytest.fixture
def store(one: dict[str, Manifest]) -> CountingStore:
    store = CountingStore()
    publish_all(Repository(store), one, PLACES)
    store.asked.clear()
    return store


def planned(store: MemoryStore, manifests: dict[str, Manifest], **changes: Any) -> FarmPlan:
    return plan_farm(Repository(store), request(manifests, places=PLACES, **changes))


def test_what_is_published_needs_nothing_and_is_found_without_a_listing(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    plan = planned(store, one)
    assert set(plan.total.actions) == {"nothing"}
    assert sum(len(engine.archs) for engine in plan.engines) > 50
    assert plan.work == ()
    assert plan.total.gpu_minutes == 0
    assert store.asked["list"] == store.asked["put"] == 0
    assert store.asked["get"] < 15  # indexes, and an export for each form


def test_a_new_repository_is_asked_once_for_each_export(one: dict[str, Manifest]) -> None:
    store = CountingStore()
    plan = planned(store, one)
    assert plan.work
    forms = store.asked["get"] - 1  # besides the index
    assert 0 < forms < 10  # a record of each export; failures are listed
    assert len(plan.engines) > 50


def test_only_an_index_that_its_publisher_wrote_is_read_in_part(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    repository = Repository(store)
    index, whole = repository.index(), repository.model_index(SMALL)
    assert index is not None
    assert whole is not None
    part = published_model(repository, index.models[0])
    assert part == PublishedModel.model_validate_json(whole.to_json())
    assert part is not None
    assert (part.facts, len(part.current)) == (whole.facts, len(whole.current))
    key = f"index/{SMALL}.json"
    store.put(key, store.get(key) + b" ")  # still valid, but index.json does not name these bytes
    assert published_model(repository, index.models[0]) == whole
    store.put(key, store.get(key).replace(b'"feature_dim"', b'"dim"'))
    with pytest.raises(RepositoryError, match="feature_dim"):
        planned(store, one)


def test_an_index_of_a_later_version_is_refused(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    key, index = f"index/{SMALL}.json", Repository(store).index()
    assert index is not None
    later = store.get(key).replace(b'"schema_version": 1', b'"schema_version": 99', 1)
    blob = Blob(sha256=sha256_bytes(later), size=len(later))
    row = index.models[0].model_copy(update={"index": blob})
    store.put(key, later)
    store.put("index.json", index.model_copy(update={"models": (row,)}).to_json())
    with pytest.raises(RepositoryError, match="upgrade"):
        planned(store, one)


def withdraw(repository: Repository, engine: PlannedEngine, kind: str = "withdrawn") -> BuildRecord:
    """Attests that the engine of a plan is withdrawn by a maintainer; returns its record."""
    keys = [entry.key for entry in repository.store.list("records/")]
    found = [repository.read(key, BuildRecord) for key in keys]
    (record,) = [one for one in found if one and Label.joined(one.targets).cell == engine.label]
    attested = attestation(
        kind, engine=record.engine.sha256, time="2026-02-01T00:00:00Z",
        body={"reason": "wrong", "by": "me"},
    )  # fmt: skip
    repository.attest(attested)
    return record


def run_somewhere(plan: FarmPlan) -> int:
    """How many engines of a plan a machine of the farm can run."""
    return sum(
        PLACES.runs_on([Arch(name) for name in engine.archs], chain) is not None
        for engine in plan.engines
        for line in PLACES.lines
        if (chain := line.get(Arch(engine.archs[0])))
        and chain.line == Label.read(engine.label).runtime
    )


def lose_index(store: CountingStore) -> None:
    store.delete(f"index/{SMALL}.json")
    store.delete("index.json")


def test_without_an_index_no_engine_is_read_about(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    exports = sum(1 for _ in MemoryStore.list(store, "exports/"))
    lose_index(store)
    plan = planned(store, one)
    assert set(plan.total.actions) == {"sign"}
    assert 0 < run_somewhere(plan) < len(plan.engines)
    assert len(plan.engines) > 30
    assert store.asked["get"] == 1 + exports  # the missing index, and each export once
    assert store.asked["list"] <= 5  # records, attestations, and three folders of failures


def test_without_an_index_one_withdrawal_does_not_make_a_plan_read_the_others(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    exports = sum(1 for _ in MemoryStore.list(store, "exports/"))
    bad = planned(store, one).engines[0]
    record = withdraw(Repository(store), bad)
    attested = sum(1 for _ in MemoryStore.list(store, f"attestations/{record.engine.sha256}/"))
    lose_index(store)
    store.asked.clear()
    planned(store, one)
    # The withdrawn engine's record, and its attestations, which say why.
    assert store.asked["get"] <= 1 + exports + 1 + attested


def test_without_an_index_engines_of_earlier_versions_are_read_about(
    one: dict[str, Manifest],
) -> None:
    """The names of their attestations state no keys."""
    store = CountingStore()
    publish_all(Repository(store), one, PLACES, earlier=True)
    exports = sum(1 for _ in MemoryStore.list(store, "exports/"))
    lose_index(store)
    store.asked.clear()
    plan = planned(store, one)
    assert set(plan.total.actions) == {"sign"}
    assert store.asked["get"] == 1 + exports + 2 * run_somewhere(plan)


def test_names_tell_what_has_to_be_verified_again(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    lose_index(store)
    exports = sum(1 for _ in MemoryStore.list(store, "exports/"))
    stricter = one[SMALL].model_copy(
        update={"tolerance": {"fp32": OwnTolerance(cosine=0.99995, reason="a test says so")}}
    )
    plan = planned(store, {SMALL: stricter}, precisions=("fp32",))
    actions = Counter(engine.action for engine in plan.engines)
    assert actions[Action.VERIFY] == run_somewhere(plan) > 0
    assert set(actions) == {Action.VERIFY, Action.SIGN}
    assert store.asked["get"] <= 1 + exports


def test_without_an_index_a_withdrawn_engine_is_not_proposed(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    bad, other = planned(store, one).engines[:2]
    repository = Repository(store)
    withdraw(repository, bad)
    withdraw(repository, other, "benchmarked")  # which says nothing about the status
    lose_index(store)
    plan = planned(store, one)
    actions = {engine.label: engine.action for engine in plan.engines}
    assert [label for label, action in actions.items() if action is Action.WITHDRAWN] == [bad.label]
    assert set(actions.values()) == {Action.WITHDRAWN, Action.SIGN}


def test_a_changed_option_is_named_with_what_it_takes(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    batch = one[SMALL].batch
    longer = batch.gpu[-1].model_copy(update={"max": 512, "opt": 512})
    changed = one[SMALL].model_copy(
        update={"batch": batch.model_copy(update={"gpu": (*batch.gpu[:-1], longer)})}
    )
    plan = planned(store, {SMALL: changed}, precisions=("fp32",))
    assert {engine.action for engine in plan.engines} == {"build"}
    assert all(one.changed[0].field == "profiles" for one in plan.engines)
    assert plan.total.gpu_minutes == 3 * len(plan.engines)  # two of building, one of verifying
    assert plan.total.mib == 20 * len(plan.engines)
    assert plan.total.unknown == plan.total.similar == 0
    assert store.asked["list"] == 4  # records and failures, those of old repositories too
    assert any("profiles: " in line for line in to_text(plan))
    assert json.loads(plan.to_json())["schema_version"] == 1


def test_a_changed_floor_asks_for_a_proof_alone(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    text = {"fp32": {"cosine": 0.99995}}
    stricter = Manifest.model_validate({**one[SMALL].model_dump(), "tolerance": text})
    plan = planned(store, {SMALL: stricter}, precisions=("fp32",))
    kinds = {engine.action: engine for engine in plan.engines if "trt" in engine.label}
    assert set(kinds) == {"verify"}
    assert kinds["verify"].seconds == 60
    assert kinds["verify"].size == 0
    rtx = [engine.action for engine in plan.engines if "rtx" in engine.label]
    assert set(rtx) == {"nothing"}  # no machine here could run it


def test_an_export_that_may_come_out_the_same_builds_only_perhaps(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    plan = planned(store, one, precisions=("fp16",), calibration=OTHER_PHOTOS)
    assert {engine.action for engine in plan.engines} == {"export"}
    assert all(engine.perhaps for engine in plan.engines)
    assert {one.field for engine in plan.engines for one in engine.changed} == {
        "lowering.calibration"
    }
    assert plan.total.perhaps == len(plan.engines)
    assert plan.total.cpu_minutes == 2  # an export in each of two dialects


def test_explain_names_the_input_that_differs(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    repository, label = Repository(store), "sm86-trt11.4-fp32"

    def explained(manifest: Manifest, builder: str = "", target: str = label) -> str:
        options = Namespace(calibration="", builder=builder, manifests="manifests")
        return "\n".join(differences(repository, manifest, target, options))

    assert_golden("planning/nothing-differs", explained(one[SMALL]).splitlines()[-1])
    levels = explained(one[SMALL], "optimization_level=5")
    assert "options.optimization_level\n" in levels
    assert " -> 5" in levels
    crop = one[SMALL].preprocess.model_copy(update={"crop": 0.5})
    cropped = explained(one[SMALL].model_copy(update={"preprocess": crop}))
    assert "preprocess.crop: 0.875 -> 0.5" in cropped
    with pytest.raises(UsageError, match=r"'sm86-trt11\.4-fp32'") as caught:
        explained(one[SMALL], target="sm86-trt11.4-fp31")
    assert_golden("planning/no-target", caught.value.message)


def test_an_engine_that_failed_twice_is_disabled_until_its_inputs_change(
    store: CountingStore, one: dict[str, Manifest]
) -> None:
    repository = Repository(store)
    record = repository.records(SMALL)[0]
    other = record.inputs.model_copy(update={"options": {**record.inputs.options}})
    export = repository.export(SMALL, record.export_key)
    assert export is not None
    label = "+".join(record.inputs.archs) + "-" + record.targets[0].partition("-")[2]

    def action() -> tuple[Action, str]:
        found = {engine.label: engine for engine in planned(store, one).engines}[label]
        return found.action, found.reason

    for key in (f"records/{SMALL}/{record.key}.json", f"index/{SMALL}.json", "index.json"):
        store.delete(key)
    assert action() == ("build", "nothing is published for it")
    for night in range(NIGHTS):
        assert action()[0] == "build"
        Failures(repository, night=f"2026-01-0{night + 1}T00:00:00Z").add(
            other, one[SMALL].kept_by(record.inputs.precision), "row 3 is far",
            stage=FailureStage.BUILD, reason=FailureReason.CRASHED, weights=export.inputs.weights,
        )  # fmt: skip
    assert action() == ("disabled", "failed 2 times: row 3 is far")


def test_a_matrix_holds_the_work_in_at_most_256_entries() -> None:
    def engine(model: int, arch: str, trt: str) -> PlannedEngine:
        return PlannedEngine(
            model=f"m{model:04}", archs=(arch,), trt=trt, action=Action.BUILD, seconds=60,
            label=f"{arch}-{RuntimeLine.parse(trt)}-fp32",
        )  # fmt: skip

    few = matrix(make_plan("s", [engine(n, "sm86", "11.4") for n in range(9)], 0))["include"]
    assert [(one.models.count("m"), one.minutes) for one in few] == [(8, 8.0), (1, 1.0)]
    assert (few[0].gpu, few[0].trt, few[0].runner) == ("sm86", "11.4", "sm86")
    many = [engine(n, arch, "11.4") for n in range(1500) for arch in ("sm86", "sm89")]
    rows = matrix(make_plan("s", many, 0))["include"]
    assert len(rows) <= 256
    assert sum(one.engines for one in rows) == 3000
    (rtx,) = matrix(make_plan("s", [engine(0, "sm86", "rtx1.7")], 0))["include"]
    assert rtx.runner == "cpu"  # any machine builds it
    assert matrix(make_plan("s", [], 0)) == {"include": []}


def test_what_is_not_here_is_taken_to_be_what_built_the_newest_engine(
    store: CountingStore,
) -> None:
    def nothing(command: list[str]) -> str:
        raise OSError("nvidia-smi: not found")

    def places(arch: str, *lines: str) -> Places:
        index = Repository(store).model_index(SMALL)
        assert index is not None
        parsed = [RuntimeLine.parse(line) for line in lines]
        return find_places([Arch(arch)], parsed, [index], nothing)

    found = places("sm90", "11.4", "rtx1.7")
    assert [chain.version for line in found.lines for chain in line.values()] == ["11.4.0.1"]
    assert_golden("planning/version-of-a-line", found.notes[0])
    with raises_golden(TargetError, "planning/no-rtx-for-sm90", match=r"rtx1\.7.*sm90"):
        places("sm90", "rtx1.7")
    with raises_golden(UsageError, "planning/trt-for-cpu", match=r"TRT=11\.4.*GPU=cpu"):
        places("cpu", "11.4")
