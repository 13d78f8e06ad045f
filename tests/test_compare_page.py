"""A comparison with PyTorch, from measurement to page."""

from __future__ import annotations

import json
from typing import Any

from farm import Farm
from support.models import SMALL

from builders import cli
from builders.desk import open_desk
from zoo.catalog import build_site
from zoo.cli import run_cli

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


def test_records_and_page_say_where_an_engine_is_slower(dry_run_copy: Farm) -> None:
    """A CPU engine, benchmarked as if on a GPU, loses to a PyTorch that takes no time."""
    farm = dry_run_copy
    (entry,) = farm.repository.model_index(SMALL).engines  # type: ignore[union-attr]
    for path in (farm.store / "attestations" / entry.engine.sha256).glob("*benchmarked*"):
        measured = json.loads(path.read_text())
        path.write_text(json.dumps({**measured, "machine": H200}))
    open_desk(str(farm.store), "", print).send_again(SMALL)
    rows = [{"batch": row["batch"], "eager_ms": 1e-6} for row in measured["body"]["batches"]]
    speed = {**SPEED, "model": SMALL, "precision": "fp32", "batches": rows}
    (farm.folder / "speed").mkdir()
    (farm.folder / "speed" / f"{SMALL}.json").write_text(json.dumps(speed))
    asked = ["compare", "--store", str(farm.store), "--torch-speed", str(farm.folder / "speed")]
    assert run_cli(cli._parser(), asked) == 0
    (entry,) = farm.repository.model_index(SMALL).engines  # type: ignore[union-attr]
    assert entry.status == "verified"
    assert entry.comparison is not None
    assert entry.comparison.slower_at == (1, 4, 16)
    assert "slower than PyTorch at batch 1, 4, 16" in farm.zoo("show", SMALL).stdout
    build_site(farm.repository, farm.folder / "page")
    page = (farm.folder / "page" / "index.html").read_text()
    assert "slower than PyTorch at batch 1, 4, 16" in page
