"""What ``zoo doctor`` and ``zoo cache`` say of this machine."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.records import toolchain

from zoo.cli import doctor
from zoo.client.engine_cache import kept, prune


def smi(driver: str) -> doctor.Run:
    return lambda command: f"NVIDIA H200, 9.0, {driver}, 143771\n"


@pytest.mark.parametrize(
    ("driver", "state", "words"),
    [
        ("580.65.06", "ok", "580.65.06, supports CUDA 13"),
        ("550.54", "ok", "supports CUDA 12"),
        ("470.1", "fail", "too old"),
        ("[N/A]", "fail", "too old"),
    ],
)
def test_the_driver_is_judged_by_the_cuda_it_serves(driver: str, state: str, words: str) -> None:
    gpu, found = doctor.gpu(smi(driver))
    assert gpu.found == "NVIDIA H200, sm90, 140 GiB"
    assert found.state == state
    assert words in found.found
    assert bool(found.do) == (state == "fail")


def test_a_runtime_that_the_driver_is_too_old_for_is_noticed() -> None:
    both = [
        toolchain("rtx", cuda=13),
        toolchain("ort", "1.32.0"),
    ]
    states = {}
    for driver in ("580.65.06", "550.54"):
        found = list(doctor.runtimes(both, smi(driver)))
        states[driver] = [one.state for one in found]
    assert states == {"580.65.06": ["ok", "ok"], "550.54": ["fail", "ok"]}
    assert {"580", "550.54"} <= set(re.findall(r"[\d.]+", found[0].do or ""))


def test_no_gpu_is_no_failure() -> None:
    def missing(command: list[str]) -> str:
        raise OSError

    (found,) = doctor.gpu(missing)
    assert found.state == "note"
    assert "CPU" in found.do


def test_a_clock_that_is_behind_is_noticed() -> None:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert doctor.clock("2025-12-31T23:59:59Z", now).state == "ok"
    assert doctor.clock("", now).state == "ok"
    assert doctor.clock("2026-01-02T00:00:00Z", now).state == "fail"
    alone = doctor.clock(None, now)
    assert alone.state == "note"
    assert "signatures" in alone.do


def test_a_cache_that_cannot_be_written_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = doctor.disk(tmp_path / "file")
    assert found.state == "fail"
    assert "ZOO_HOME" in found.do
    (found,) = doctor.disk(tmp_path / "new" / "folder")
    assert "GiB free" in found.found


def test_pruning_leaves_what_is_in_use(tmp_path: Path) -> None:
    now = time.time()
    for name, days in (("a" * 64, 31), ("b" * 64, 29), ("c" * 64 + ".part", 2), (".d", 0.5)):
        path = tmp_path / "engines" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (now - 86_400 * days,) * 2)
    going = prune(kept(tmp_path), now=now, days=30)
    assert [one.path.name[:1] for one in going] == ["a", "c"]
