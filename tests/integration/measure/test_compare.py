"""Engines beside PyTorch: where one is slower, its record says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.goldens import assert_golden
from support.make_farm import Farm
from support.models import SMALL
from support.paths import MANIFESTS
from support.records import engine_entry
from support.signed_repository import Signed, no_passphrase

from builders.cli import main
from builders.measure import comparison
from builders.measure.engine_vs_pytorch import EngineRow
from builders.measure.torch_speed import TorchSpeed, beside_torch_speed, read_torch_speed
from builders.publish.candidates import Proposals
from builders.publish.keys import load_builder
from builders.publish.signatures import sign
from builders.publish.signer import open_desk
from builders.verify.in_turns import Row, in_turns
from zoo.catalog.site import build_site
from zoo.cli.main import run_cli
from zoo.schema.index import ComparisonSummary, EngineEntry
from zoo.schema.manifest import load_manifests
from zoo.schema.records import Attestation
from zoo.util.errors import RepositoryError, UsageError

H200 = {"gpu": {"name": "NVIDIA H200"}}
SPEED: dict[str, Any] = {
    "model": "m",
    "torch": "2.11.0",
    "precision": "fp16",
    "machine": H200,
    "batches": [
        {"batch": 1, "eager_ms": 7.0, "compiled_ms": 0.4},
        {"batch": 256, "eager_ms": 25.0, "compiled_ms": 23.0},
        {"batch": 512, "eager_ms": 50.0},
    ],
}


def timed(**changes: Any) -> EngineEntry:
    rows = [
        {"batch": 1, "latency_ms": 0.3, "images_per_second": 3000.0},
        {"batch": 256, "latency_ms": 30.0, "images_per_second": 8533.0},
    ]
    values = {"benchmark": {"batches": rows, "machine": H200}, "precision": "fp16", **changes}
    return engine_entry("sm86-rtx1.7-fp16", **values)


def test_an_engine_is_slower_where_pytorch_at_its_best_is_faster() -> None:
    found = beside_torch_speed(timed(), TorchSpeed.model_validate(SPEED))
    assert found is not None
    assert [(one.batch, one.pytorch_ms) for one in found.batches] == [(1, 0.4), (256, 23.0)]
    assert [one.ratio for one in found.batches] == pytest.approx([0.4 / 0.3, 23 / 30])
    assert [one.ratio_interval for one in found.batches] == [None, None]  # of an old file
    assert ComparisonSummary.model_validate(found.model_dump()).slower_at == (256,)


def with_intervals(torch: tuple[float, float] | None, engine: tuple[float, float] | None,
                   **times: Any) -> Any:  # fmt: skip
    """A comparison at batch 1, where both or one or none of the times has an interval."""
    row = {"batch": 1, "eager_ms": 2.0, "eager_interval_ms": torch, **times}
    speed = TorchSpeed.model_validate({**SPEED, "batches": [row]})
    of_engine = {"batch": 1, "latency_ms": 1.0, "images_per_second": 1000.0}
    if engine:
        of_engine["interval_ms"] = engine
    return beside_torch_speed(timed(benchmark={"batches": [of_engine], "machine": H200}), speed)


def test_a_ratio_on_a_gpu_has_the_interval_of_both_times() -> None:
    (row,) = with_intervals((1.98, 2.02), (0.99, 1.01)).batches
    assert row.ratio == pytest.approx(2)
    assert row.ratio_interval == pytest.approx((1.98 / 1.01, 2.02 / 0.99))


def test_the_interval_is_that_of_the_faster_pytorch() -> None:
    faster = {"compiled_ms": 1.5, "compiled_interval_ms": (1.49, 1.51)}
    (row,) = with_intervals((1.98, 2.02), (1.0, 1.0), **faster).batches
    assert row.ratio_interval == pytest.approx((1.49, 1.51))
    (row,) = with_intervals((1.98, 2.02), (1.0, 1.0), compiled_ms=1.5).batches
    assert row.ratio_interval is None  # not that of the other


@pytest.mark.parametrize(("torch", "engine"), [(None, (1.0, 1.0)), ((2.0, 2.0), None)])
def test_a_ratio_of_an_old_time_has_no_interval(torch: Any, engine: Any) -> None:
    (row,) = with_intervals(torch, engine).batches
    assert row.ratio == pytest.approx(2)
    assert row.ratio_interval is None


def test_a_noisy_pytorch_is_not_compared() -> None:
    found = with_intervals((1.0, 3.0), (1.0, 1.0))
    assert found.batches == ()
    (reason,) = found.not_measured
    assert reason.batch == 1
    assert "known to 50% only" in str(reason.reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"benchmark": None},
        {"precision": "fp32"},
        {"benchmark": {"batches": [], "machine": {"gpu": {"name": "NVIDIA L4"}}}},
        {"benchmark": {"batches": [], "machine": {}}},
    ],
)
def test_what_was_not_measured_alike_is_not_compared(changes: dict[str, Any]) -> None:
    assert beside_torch_speed(timed(**changes), TorchSpeed.model_validate(SPEED)) is None


@pytest.mark.parametrize("text", ["", "[]", '{"model": "m"}'])
def test_a_file_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UsageError, match=r"m\.json: ") as caught:
        read_torch_speed(tmp_path / "m.json")
    assert_golden("measure/no-torch-speed", caught.value.hint)


def test_a_written_file_is_what_was_measured(tmp_path: Path) -> None:
    """Its JSON has stayed the same: a mode that was not timed is absent, other nulls stay."""
    machine = {"cpu": "c", "image": None, "gpu": {"name": "NVIDIA H200", "driver": None}}
    values = {**SPEED, "machine": machine}
    (tmp_path / "m.json").write_text(TorchSpeed.model_validate(values).to_json())
    assert (tmp_path / "m.json").read_text() == json.dumps(values, indent=1) + "\n"
    assert read_torch_speed(tmp_path / "m.json") == TorchSpeed.model_validate(values)


def test_turns_alternate() -> None:
    calls: list[str] = []
    ticks = iter(range(1000))
    in_turns(
        lambda: calls.append("a"), lambda: calls.append("b"), lambda: next(ticks), lambda s: None,
        limits=(30, 100),
    )  # fmt: skip
    warm, *rounds = [calls[place : place + 2] for place in range(0, len(calls), 2)]
    assert warm == ["a", "b"]
    assert len(rounds) > 3
    assert rounds == [["a", "b"] if n % 2 == 0 else ["b", "a"] for n in range(len(rounds))]


def test_records_and_page_say_where_an_engine_is_slower(dry_run_copy: Farm) -> None:
    """A CPU engine, benchmarked as if on a GPU, loses to a PyTorch that takes no time."""
    farm = dry_run_copy
    (entry,) = farm.repository.model_index(SMALL).engines  # type: ignore[union-attr]
    signer = load_builder(Path(f"{farm.store}.keys/builder.pem"), no_passphrase)
    for path in (farm.store / "attestations" / entry.engine.sha256).glob("*benchmarked*"):
        measured = json.loads(path.read_text())
        record = measured.pop("signature")["record"]
        changed = Attestation.model_validate({**measured, "machine": H200})
        path.write_bytes(sign(changed, signer, record).to_json())
    open_desk(str(farm.store), "", print).send_again(SMALL)
    rows = [{"batch": row["batch"], "eager_ms": 1e-6} for row in measured["body"]["batches"]]
    speed = {**SPEED, "model": SMALL, "precision": "fp32", "batches": rows}
    (farm.folder / "speed").mkdir()
    (farm.folder / "speed" / f"{SMALL}.json").write_text(json.dumps(speed))
    asked = ["compare", "--store", str(farm.store), "--torch-speed", str(farm.folder / "speed")]
    assert run_cli(main.farm_parser(), asked) == 0
    (entry,) = farm.repository.model_index(SMALL).engines  # type: ignore[union-attr]
    assert entry.status == "verified"
    assert entry.comparison is not None
    assert entry.comparison.slower_at == (1, 4, 16)
    assert "PyTorch at batch 1, 4, 16" in farm.zoo("show", SMALL).stdout
    build_site(farm.repository, farm.folder / "page")
    page = (farm.folder / "page" / "index.html").read_text()
    assert "PyTorch at batch 1, 4, 16" in page


@pytest.mark.parametrize(("load", "recorded"), [(0.0, 1), (0.9, 0)], ids=["quiet", "busy"])
def test_noise_displaces_no_earlier_comparison(
    load: float, recorded: int, signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        EngineRow(
            model=SMALL, precision="fp32", engine="a" * 64,
            times=Row(batch=batch, engine_ms=1.0, eager_ms=2.0, ratios=(2.0,) * 9, load=load),
        )
        for batch in (1, 4)
    ]  # fmt: skip
    monkeypatch.setattr(comparison, "compare_engines", lambda *arguments: rows)
    proposals = Proposals(signed.repository, None)
    monkeypatch.setattr(proposals, "send_again", lambda model: None)
    manifest = load_manifests(MANIFESTS)[SMALL]
    told: list[str] = []
    comparison.compare_on_cpu(signed.repository, proposals, [manifest], MANIFESTS, told.append)
    assert len(signed.repository.attestations("a" * 64)) == recorded
    assert len(told) == 2 - recorded


def test_without_anything_to_compare_it_says_so(
    dry_run_copy: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    (dry_run_copy.folder / "speed").mkdir()
    speed = str(dry_run_copy.folder / "speed")
    asked = ["compare", "--store", str(dry_run_copy.store), "--torch-speed", speed]
    assert run_cli(main.farm_parser(), asked) == RepositoryError.exit_code
    assert_golden("measure/nothing-to-compare", capsys.readouterr().err, {speed: "SPEED"})
