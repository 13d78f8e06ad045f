"""What a change of a manifest makes the farm do again, and what it does not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from support.make_farm import Counts, Farm, counts
from support.models import LITE
from support.paths import ROOT

from zoo.schema.records import ExportRecord

STRICT = "[tolerance.fp32]\nrelative_error = 0.00000001\n\n"


def published(farm: Farm) -> dict[str, str]:
    """Target to engine digest."""
    index = farm.repository.model_index(LITE)
    assert index is not None
    return {label: e.engine.sha256 for e in index.current for label in e.targets}


def exports(farm: Farm) -> list[ExportRecord]:
    store = farm.repository.store
    keys = [entry.key for entry in store.list(f"exports/{LITE}/")]
    return [ExportRecord.model_validate_json(store.get(key)) for key in keys]


def test_changed_text_changes_the_page_and_nothing_else(copy: Farm) -> None:
    before = copy.snapshot()
    copy.edit(LITE, "EfficientNet made for small devices", "A network with another text")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu,sm86")
    assert counts(done) == Counts(current=3)
    after = copy.snapshot()
    changed = {key for key in after if after[key] != before.get(key)}
    assert {key for key in changed if re.search("[0-9a-f]{64}", key) is None} >= {
        f"index/{LITE}.json", "index.json", "metadata/timestamp.json",
    }  # fmt: skip
    assert {key.split("/")[0][-10:] for key in changed} == {"index", "index.json", "metadata"}
    assert "another text" in (copy.folder / "site" / "index.html").read_text()


def test_a_changed_tolerance_verifies_again_and_builds_nothing(copy: Farm) -> None:
    before = copy.snapshot()
    copy.edit(LITE, "[catalog]", "[tolerance.fp32]\ncosine = 0.99995\n\n[catalog]")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode == 0, done.stdout
    assert counts(done) == Counts(verified=1)
    added = [key.split("/")[0] for key in copy.snapshot() if key not in before]
    assert added.count("attestations") == 2
    assert not {"blobs", "records", "exports"} & set(added)


def test_a_tolerance_that_is_missed_withdraws_the_engine(copy: Farm) -> None:
    copy.edit(LITE, "[catalog]", f"{STRICT}[catalog]")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert counts(done) == Counts(failed=1)
    index = copy.repository.model_index(LITE)
    assert index is not None
    engines = {e.targets[0]: e for e in index.engines}
    assert engines["cpu-ort1.32-fp32"].status == "withdrawn"
    refused = copy.zoo("pull", LITE)
    assert refused.returncode == 11
    assert "withdrawn" in refused.stderr
    again = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert again.returncode != 0
    assert counts(again).published == 0
    copy.edit(LITE, STRICT, "")
    back = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert counts(back) == Counts(verified=1)
    assert copy.zoo("pull", LITE).returncode == 0


def test_a_new_engine_that_misses_is_not_published(copy: Farm, tmp_path: Path) -> None:
    for key in [entry.key for entry in copy.repository.store.list("records/")]:
        (copy.store / key).unlink()
    copy.edit(LITE, "[catalog]", f"{STRICT}[catalog]")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert counts(done) == Counts(failed=1)
    assert copy.repository.records(LITE) == []
    index = copy.repository.model_index(LITE)
    assert index is not None
    (cell,) = index.disabled
    assert "batch 1: " in cell.reason
    command = done.stdout.partition("to reproduce: ")[2].splitlines()[0].split()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 8
    verdict = json.loads((Path(command[-1]) / "result.json").read_text())["verification"]
    assert not verdict["passed"]


def test_a_changed_mean_makes_a_new_export_and_golden(copy: Farm) -> None:
    before = exports(copy)
    copy.edit(LITE, "mean = [0.5, 0.5, 0.5]", "mean = [0.45, 0.5, 0.5]")
    copy.edit(LITE, "[catalog]", '[deviations]\nmean = "a test"\n\n[catalog]')
    done = copy.make(f"MODELS={LITE}", "GPU=cpu,sm86", "PRECISION=fp32")
    assert done.returncode == 0, done.stdout
    new = [record for record in exports(copy) if record not in before]
    assert len(new) == 1
    assert new[0].golden not in [record.golden for record in before]
    # Normalisation is outside the graph, so the ONNX is the same; but a record says how its engine
    # is fed, and that has changed.
    assert new[0].onnx in [record.onnx for record in before]
    index = copy.repository.model_index(LITE)
    assert index is not None
    # What was not asked for is of the old meaning and leaves the index.
    assert {e.targets[0] for e in index.engines} == {"cpu-ort1.32-fp32", "sm86-rtx1.7-fp32"}
    assert all(entry.preprocess.mean == (0.45, 0.5, 0.5) for entry in index.engines)


def test_a_changed_cut_makes_new_engines(copy: Farm) -> None:
    before = published(copy)
    copy.edit(LITE, 'cut = "pooled"', 'cut = "flattened"')
    copy.edit(LITE, "feature_dim = 1280", "feature_dim = 62720")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode == 0, done.stdout
    after = published(copy)
    assert after["cpu-ort1.32-fp32"] != before["cpu-ort1.32-fp32"]
    index = copy.repository.model_index(LITE)
    assert index is not None
    widths = {label: e.feature_dim for e in index.engines for label in e.targets}
    assert widths == {"cpu-ort1.32-fp32": 62720}  # the others are of another cut


def test_a_wrong_width_is_an_error_at_export(copy: Farm) -> None:
    copy.edit(LITE, "feature_dim = 1280", "feature_dim = 1281")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode != 0
    assert re.search(r"feature_dim.*\b1281\b.*\b1280\b", done.stdout)
    assert counts(done) == Counts(failed=1)


def test_an_engine_for_more_gpus_serves_each_of_them(copy: Farm) -> None:
    first = copy.make(f"MODELS={LITE}", "GPU=sm86,sm89,sm120", "PRECISION=fp16")
    assert counts(first) == Counts(published=1)
    engines = published(copy)
    labels = {f"{arch}-rtx1.7-fp16" for arch in ("sm86", "sm89", "sm120")}
    assert len({engines[label] for label in labels}) == 1
    again = copy.make(f"MODELS={LITE}", "GPU=sm89", "PRECISION=fp16")
    assert counts(again) == Counts(current=1)
