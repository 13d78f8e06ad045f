"""A run that is killed leaves nothing half done that anybody sees."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.make_farm import Farm
from support.models import SMALL
from support.paths import MANIFESTS, ROOT
from support.waiting import wait_for_end


def visible(farm: Farm) -> None:
    """Checks that everything that can be seen is whole."""
    repository = farm.repository
    for record in repository.records(SMALL):
        assert repository.blobs.has(record.engine)
        assert repository.blobs.has(record.golden)
        assert repository.attestations(record.engine.sha256)
    index = repository.index()
    for row in index.models if index else ():
        model = repository.model_index(row.model)
        assert model is not None
        for engine in model.engines:
            assert engine.status == "verified"
            assert repository.blobs.has(engine.engine)
    for key in [entry.key for entry in repository.store.list("blobs/")]:
        data = repository.store.get(key)
        assert hashlib.sha256(data).hexdigest() == key.rsplit("/", 1)[1]


def descendants(pid: int) -> set[int]:
    """Everything that a process has started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def kill(process: subprocess.Popen[bytes], *, workers_too: bool) -> None:
    """Kills `make zoo`. A worker leads a session of its own, and ends when its farm has gone."""
    os.killpg(process.pid, signal.SIGSTOP)  # so that nothing starts while we look
    started = descendants(process.pid) if workers_too else set()
    os.killpg(process.pid, signal.SIGKILL)
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.full
def test_a_kill_at_any_moment_leaves_no_visible_half(dry_run: Farm, tmp_path: Path) -> None:
    """Kills `make zoo`, mostly with all that it started, then runs it to its end."""
    random.seed(0)
    farm = Farm(folder=tmp_path, manifests=dry_run.manifests)
    # The state is there, so that the kills fall on export, build, verification and publication.
    for part in ("states", "blobs", "repository.json"):
        source = dry_run.store / part
        target = farm.store / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    asked = ("WEIGHTS=seeded", f"MODELS={SMALL}", "GPU=cpu")
    for number in range(12):
        process = subprocess.Popen(
            farm.command(*asked), cwd=ROOT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(timeout=random.uniform(0.2, 12))
        except subprocess.TimeoutExpired:
            kill(process, workers_too=number % 3 != 0)
        time.sleep(0.05)
        visible(farm)
    done = farm.make(*asked)
    assert done.returncode == 0, done.stdout
    visible(farm)
    index = farm.repository.index()
    assert index is not None
    assert [row.model for row in index.models] == [SMALL]


@pytest.mark.full
def test_ctrl_c_while_models_are_exported_ends_all_of_it(tmp_path: Path) -> None:
    farm = Farm(folder=tmp_path, manifests=MANIFESTS)
    asked = ("WEIGHTS=seeded", f"MODELS={SMALL},resnet50", "GPU=cpu", "PRECISION=fp32", "JOBS=2")
    process = subprocess.Popen(
        farm.command(*asked), cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    exporting: set[str] = set()
    for line in process.stdout:
        exporting.add(line.partition(":")[0])
        if exporting >= {SMALL, "resnet50"}:
            break
    started = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.stdout.read().count("Traceback") == 0
    assert process.wait() != 0
    for pid in started:
        wait_for_end(pid)
    assert not list(tmp_path.glob("_failures/*"))
    assert not list(farm.store.parent.glob(".incoming/job-*"))
    assert not list(farm.store.glob("**/.incoming/job-*"))
