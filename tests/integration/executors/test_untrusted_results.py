"""What a worker returns is not trusted, whichever executor ran it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.misbehaving_worker import HOST_FILE, MISBEHAVIOURS, SECRET
from support.paths import ROOT
from test_backends import inputs

from builders.executors import LocalExecutor
from builders.executors.base import Executor
from builders.executors.dask.client import _lay_out
from builders.executors.dask.worker import Answer
from builders.executors.docker import DockerExecutor
from builders.jobs.messages import BuildJob
from builders.jobs.output_files import LIMITS
from builders.jobs.progress import silent
from builders.jobs.scratch import keep
from builders.jobs.worker_environment import worker_environment
from zoo.repository.repository import Repository
from zoo.schema.records import Blob
from zoo.stores import LocalStore
from zoo.util.errors import JobError

SCRIPT = ROOT / "tests" / "misbehaviour.py"


def local(case: str, folder: Path) -> Executor:
    return LocalExecutor(60, (sys.executable, str(SCRIPT), case, str(folder / HOST_FILE)))


def docker(case: str, folder: Path) -> Executor:
    """The docker executor on a stand-in program that runs the worker here."""
    program = folder / "docker"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in image) echo sha256:0;; ps) ;; inspect) echo false;; rm) ;;\n'
        f'run) exec "{sys.executable}" "{SCRIPT}" "{case}" "{folder / HOST_FILE}" "$@";;\nesac\n'
    )
    program.chmod(0o755)
    return DockerExecutor(60, docker=str(program))


EXECUTORS: dict[str, Callable[[str, Path], Executor]] = {"local": local, "docker": docker}


class Bench:
    """A store, a job, and a file of the farm's machine that nobody may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, folder / HOST_FILE
        self.host.write_text(SECRET)
        self.repository = Repository(LocalStore(folder / "store"))
        self.repository.claim("dry-run")
        onnx = folder / "onnx"
        onnx.write_text("an ONNX")
        self.job = BuildJob(
            inputs=inputs("rtx", "sm86"), onnx=self.repository.blobs.add(onnx), parameters=1,
            prove=None, store=self.repository.store.url,
        )  # fmt: skip
        self.output = folder / "out"
        self.output.mkdir()

    def check_nothing_leaked(self, kept: Path) -> None:
        assert self.host.read_text() == SECRET
        for root in (self.folder / "store", kept):
            for path in root.rglob("*"):
                assert not path.is_symlink()
                if path.is_file():
                    assert SECRET.encode() not in path.read_bytes()
        assert (kept / "job.json").read_text() == self.job.model_dump_json(indent=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("case", MISBEHAVIOURS)
def test_a_worker_that_misbehaves_fails_its_job(case: str, executor: str, bench: Bench) -> None:
    with pytest.raises(JobError) as caught:
        EXECUTORS[executor](case, bench.folder).run(bench.job, bench.output, silent)
    assert type(caught.value) is JobError
    assert caught.value.hint
    assert SECRET not in str(caught.value)
    keep(bench.output, bench.folder / "kept")
    bench.check_nothing_leaked(bench.folder / "kept")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_that_behaves_is_taken_at_its_word(executor: str, bench: Bench) -> None:
    """The same worker: what fails above fails for its misbehaviour alone."""
    run = EXECUTORS[executor]("nothing", bench.folder).run
    outcome = run(bench.job, bench.output, silent)
    assert (outcome.folder / "engine").read_text() == "made here: engine"
    assert (outcome.folder / "cache").read_text() == "made here: cache"
    assert bench.host.read_text() == SECRET  # job.json was a link to it
    assert not (outcome.folder / "job.json").is_symlink()


def answer(**changes: object) -> Answer:
    result = {
        "kind": "build", "engine": "engine", "facts": {}, "precision_proven": False,
        "verification": None, "benchmark": [], "machine": {}, "cost": {},
    }  # fmt: skip
    made = {"result": json.dumps(result), "files": {"engine": Blob(sha256="0" * 64, size=1)}}
    return Answer.model_validate(made | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": {"engine": Blob(sha256="0" * 64, size=1), "more": Blob(sha256="0" * 64, size=1)}},
        {"files": {"engine": Blob(sha256="0" * 64, size=LIMITS["engine"] + 1)}},
        {"files": {"engine": Blob(sha256="0" * 64, size=-1)}},
        {"result": "[" * 10_000},
        {"result": " " * (LIMITS["result"] + 1)},
        {"result": '{"kind": "reference", "file": "engine", "cost": {}}'},
    ],
    ids=["no file", "more files", "large", "negative", "deep", "long", "another kind"],
)
def test_an_answer_of_a_cluster_is_not_trusted(changes: dict[str, object], bench: Bench) -> None:
    with pytest.raises(JobError) as caught:
        _lay_out(answer(**changes), bench.job, bench.output)
    assert type(caught.value) is JobError
    assert not (bench.output / "engine").exists()


def test_an_answer_names_no_path() -> None:
    for name in ("/etc/x", "../x", "a/b", "..", "", "log.txt", "x\n"):
        with pytest.raises(ValueError, match=r"files"):
            answer(files={name: Blob(sha256="0" * 64, size=1)})


def test_no_secret_is_in_a_workers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    secrets = ("ZOO_KEYS_PASSPHRASE", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "OTHER")
    for name in secrets:
        monkeypatch.setenv(name, SECRET)
    seen = tmp_path / "seen"
    code = f"import json, os; json.dump(dict(os.environ), open({str(seen)!r}, 'w'))"
    with pytest.raises(JobError):
        LocalExecutor(60, (sys.executable, "-c", code)).run(bench.job, bench.output, silent)
    found = json.loads(seen.read_text())
    assert not found.keys() & set(secrets)
    assert found["PATH"] == os.environ["PATH"]
    bucket = worker_environment(bucket=True, weights=True, environment=dict(os.environ))
    assert bucket.keys() & set(secrets) == {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN"}
