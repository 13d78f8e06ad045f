"""``zoo show`` and ``zoo list`` of models that are prepared unusually."""

from __future__ import annotations

import re
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
from support.records import model_index

from zoo.cli import main
from zoo.schema.index import Index, index_row
from zoo.schema.manifest import StatedPreprocess


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model_index()
    changes: dict[str, Any] = {"input_size": (1024, 768), "crop_mode": "squash", "crop": 1.0}
    stated = StatedPreprocess.model_validate({**plain.preprocess.model_dump(), **changes})
    reasons = {"crop_mode": "as its authors do"}
    made = model_index(preprocess=stated, deviations=reasons)
    index = Index(kind="release", models=tuple(index_row(m, b"") for m in (plain, made)))
    signed = SimpleNamespace(expires=lambda: None)
    fake = SimpleNamespace(model=lambda name: made, signed=signed, index=lambda: index)
    monkeypatch.setattr(main, "client_of", lambda options: fake)


@pytest.mark.usefixtures("client")
def test_show_prints_crop_mode_size_and_why_it_deviates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.show(Namespace(model="m", json=False)) == 0
    printed = capsys.readouterr().out
    assert "input: 1024x768 px (train size), bicubic, crop 1.0 (squash), mean" in printed
    assert re.search("^.*crop mode.*: as its authors do", printed, re.MULTILINE)


@pytest.mark.usefixtures("client")
def test_list_aligns_sizes_that_are_not_square(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.list_models(Namespace(patterns=[], json=False, names=False)) == 0
    header, *rows = (line.rstrip() for line in capsys.readouterr().out.splitlines())
    end = header.index("pixels") + len("pixels")
    assert [row[:end].split()[-1] for row in rows] == ["224", "1024x768"]
    assert {row[end] if len(row) > end else " " for row in rows} == {" "}
