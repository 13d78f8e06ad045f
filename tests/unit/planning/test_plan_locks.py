"""What a plan says of weights that are not locked; it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import ZooFarm
from support.goldens import assert_golden
from support.hub_manifests import copy_open, pin

from builders.weights.locks import Pin, changing
from zoo.schema.manifest import DigestFrom

Plan = Callable[..., tuple[str, str]]

OPEN, ALONE, LOCKED = "densenet121", "resnet101", "mobilenetv3_small_100"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that is open, one with a hash that one public file records, and a locked one."""
    folder = tmp_path / "manifests"
    for name in (OPEN, ALONE, LOCKED):
        copy_open(name, folder)
    pin(folder / f"{ALONE}.toml", "a" * 64, digest_from="one-public-file")
    locked = Pin(
        repository="timm/mobilenetv3_small_100.lamb_in1k",
        file="model.safetensors",
        revision="a" * 40,
        sha256="b" * 64,
        size=1,
        digest_from=DigestFrom.DOWNLOAD,
    )
    with changing(folder) as write:
        write({LOCKED: locked})
    return folder


@pytest.fixture
def plan(
    zoo_farm: ZooFarm, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Plan:
    def run(*options: str) -> tuple[str, str]:
        before = {path: path.read_bytes() for path in folder.iterdir()}
        status = zoo_farm(
            "--manifests", str(folder), "plan", "--gpu", "cpu", "--precision", "fp32",
            "--store", str(tmp_path / "store"), *options,
        )  # fmt: skip
        assert status == 0
        assert before == {path: path.read_bytes() for path in folder.iterdir()}
        assert not (tmp_path / "store").exists()
        out, err = capsys.readouterr()
        return out, err

    return run


def without_time(text: str) -> str:
    """Returns a plan without its last line, which says how long it took."""
    return "\n".join(text.splitlines()[:-1])


def actions(text: str) -> dict[str, str]:
    return {engine["model"]: engine["action"] for engine in json.loads(text)["engines"]}


def test_a_plan_says_what_a_run_will_lock(plan: Plan) -> None:
    text, _ = plan()
    assert_golden("planning/plan-locks", without_time(text))
    out, _ = plan("--json")
    assert actions(out) == dict.fromkeys((OPEN, ALONE, LOCKED), "export")
    assert any(f"({OPEN})" in note for note in json.loads(out)["notes"])


def test_a_locked_plan_says_what_is_refused(plan: Plan) -> None:
    text, _ = plan("--locked")
    assert_golden("planning/plan-locked", without_time(text))
    out, _ = plan("--locked", "--json")
    assert actions(out) == {OPEN: "blocked", ALONE: "export", LOCKED: "export"}


def test_a_matrix_has_nothing_that_a_night_would_refuse(plan: Plan) -> None:
    out, told = plan("--matrix")
    [work] = json.loads(out)["include"]
    assert work["models"] == f"{LOCKED},{ALONE}"
    assert f"({OPEN})" in told
    assert "make lock" in told


def test_a_dry_run_needs_no_lock(plan: Plan, folder: Path) -> None:
    (folder / "manifests.lock").write_text("<<<<<<< HEAD\n")
    text, _ = plan("--weights", "seeded")
    assert "locked" not in text
