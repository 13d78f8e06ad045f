"""The price of portable engines on the pages: read from result files, for TensorRT alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import records
from support.goldens import raises_golden

from builders.paths import ROOT
from zoo.catalog.portability import prices, read_prices
from zoo.catalog.render import environment
from zoo.schema.index import EngineEntry
from zoo.util.errors import UsageError

RESULTS = sorted((ROOT / "docs/results").glob("*/portability/*.json"))


def engine(label: str, kind: str, version: str) -> EngineEntry:
    return records.engine_entry(label, toolchain=records.toolchain(kind=kind, version=version))


TRT = engine("sm90-trt8.6-fp16", "trt", "8.6.0")
RTX = engine("sm86-rtx1.7-fp16", "rtx", "1.7.1")


def test_the_numbers_are_those_of_the_files() -> None:
    measured = read_prices(RESULTS)
    shown = prices(measured, "another", [RTX, TRT])
    assert shown is not None
    assert not shown.own
    assert shown.batches == (1, 64)
    assert "NVIDIA H200" in shown.measured
    cells = {(row.network, row.form): row for row in shown.rows}
    for path in RESULTS:
        result = json.loads(path.read_text())
        timed = [form for form in result["engines"] if form["turns"]]
        for form in timed:
            row = cells[f"{result['model']} {result['precision']}", form["form"]]
            if form is timed[0]:
                assert row.times == ("1", "1")
                continue
            for turns, cell in zip(form["turns"], row.times, strict=True):
                assert cell.startswith(f"{turns['ratio']:.3f} (")
            assert row.size.endswith(f"({form['size'] / timed[0]['size']:.2f})")
    assert {network for network, _ in cells} == {
        f"{model} fp16" for model in ("deit3_small", "mobilenetv2_100", "resnet50")
    }
    assert "10.9" in cells["resnet50 fp16", "same compute capability"].note


def test_a_model_that_was_measured_has_its_own_numbers() -> None:
    shown = prices(read_prices(RESULTS), "resnet50", [TRT])
    assert shown is not None
    assert shown.own
    assert {row.network for row in shown.rows} == {"resnet50 fp16"}


def test_only_engines_of_tensorrt_have_a_choice() -> None:
    measured = read_prices(RESULTS)
    assert prices(measured, "resnet50", [RTX]) is None
    assert prices(measured, "resnet50", []) is None
    assert prices((), "resnet50", [TRT]) is None


def test_the_page_has_a_table() -> None:
    template = '{% from "macros.html" import portability %}{{ portability(table) }}'

    shown = prices(read_prices(RESULTS), "resnet50", [TRT])
    page = environment().from_string(template).render(table=shown)
    assert page.count("<tr>") == 1 + 5
    assert "Ampere and later" in page


@pytest.mark.parametrize("text", ["{", '{"model": "m"}'])
def test_a_broken_result_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    name = "broken" if text == "{" else "other"
    with raises_golden(UsageError, f"catalog/portability-{name}"):
        read_prices([path])
    with pytest.raises(UsageError):
        read_prices([tmp_path / "absent.json"])
