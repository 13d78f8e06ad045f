"""What a worker returns is not trusted, whichever executor ran it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.dask_cluster import Cluster
from support.misbehaving_worker import HOST_FILE, MISBEHAVIOURS, ONNX, SECRET
from support.paths import MANIFESTS, ROOT
from support.records import (
    blob,
    build_inputs,
    build_record,
    export_inputs,
    preprocess,
    weights_identity,
)

from benchmarks import fake_builder
from builders.executors import LocalExecutor
from builders.executors.base import Executor
from builders.executors.dask.capabilities import imports
from builders.executors.dask.client import DaskExecutor, _lay_out, _parse_event
from builders.executors.dask.worker import Answer, Message
from builders.executors.docker import DockerExecutor
from builders.jobs.messages import (
    BuildJob,
    ExportJob,
    Job,
    ReferenceJob,
    VerificationSpec,
    VerifyJob,
)
from builders.jobs.output_files import LIMITS
from builders.jobs.progress import Event, silent
from builders.jobs.scratch import keep
from builders.photos.calibration import CalibrationSet
from builders.photos.labelled import LabelledSet
from builders.toolchains.interpreter import toolchains_of
from builders.toolchains.worker_environment import worker_environment
from zoo.repository.repository import Repository
from zoo.schema.floors import floors
from zoo.schema.manifest import load_manifest
from zoo.schema.precisions import Precision
from zoo.schema.records import Blob
from zoo.stores import LocalStore
from zoo.util.errors import JobError, NotRunError

SCRIPT = ROOT / "tests" / "support" / "misbehaving_worker.py"
CASE = "case"
SECRETS = ("ZOO_KEYS_PASSPHRASE", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "OTHER")

IN_CONTAINERS = ("build", "verify")
"""Other jobs run in the farm's own Python: the docker executor hands them to the local one."""

TABLE = [
    (executor, kind, case)
    for executor in ("local", "docker")
    for kind, cases in MISBEHAVIOURS.items()
    if executor == "local" or kind in IN_CONTAINERS
    for case in cases
]

ON_A_CLUSTER = [
    ("build", "absolute path"),
    ("build", "one file twice"),
    ("build", "missing file"),
    ("build", "huge number"),
    ("build", "engine is a link"),
    ("build", "log is a link"),
    ("build", "engine is a hard link"),
    ("build", "engine is a FIFO"),
    ("build", "engine is a folder"),
    ("build", "engine is a text"),
    ("build", "result is too long"),
    ("export", "golden is a link"),
    ("export", "golden is no archive"),
    ("export", "onnx is no protocol buffer"),
    ("export", "exports are missing"),
    ("reference", "photos lack labels"),
    ("verify", "features are no array"),
]
"""One of each kind: each starts processes on a real worker."""


def local(folder: Path) -> Executor:
    return LocalExecutor(60, (sys.executable, str(SCRIPT), str(folder / CASE)))


def docker(folder: Path) -> Executor:
    """The docker executor on a stand-in program that runs the worker here."""
    program = folder / "docker"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in image) echo sha256:0;; ps) ;; inspect) echo false;; rm) ;;\n'
        f'run) exec "{sys.executable}" "{SCRIPT}" "{folder / CASE}" "$@";;\nesac\n'
    )
    program.chmod(0o755)
    return DockerExecutor(60, docker=str(program))


EXECUTORS: dict[str, Callable[[Path], Executor]] = {"local": local, "docker": docker}


class Bench:
    """A store, jobs, and a file of the farm's machine that nobody may touch."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder, self.place, self.host = folder, place, place / HOST_FILE
        self.host.write_text(SECRET)
        self.repository = Repository(LocalStore(folder / "store"))
        self.repository.claim("dry-run")
        self.output = folder / "out"
        self.output.mkdir()

    def job(self, kind: str) -> Job:
        store = self.repository.store.url
        manifest, manifests = load_manifest(MANIFESTS / "efficientnet_lite0.toml"), str(MANIFESTS)
        blob = self._blob()
        spec = VerificationSpec(
            golden=blob, preprocess=preprocess(), tolerance=floors()[Precision.FP32],
            batches=(1,), benchmark=(), labelled="labelled.npz",
        )  # fmt: skip
        jobs: dict[str, Job] = {
            "build": BuildJob(
                inputs=build_inputs(), onnx=blob, parameters=1, verification=None, store=store
            ),
            "verify": VerifyJob(record=build_record(), verification=spec, store=store),
            "export": ExportJob(
                manifest=manifest, manifest_dir=manifests, weights=weights_identity(),
                inputs={"fp32": export_inputs()}, store=store,
                calibration=CalibrationSet(source="shipped", paths=(), digests=()),
            ),
            "reference": ReferenceJob(
                manifest=manifest, manifest_dir=manifests, store=store,
                labelled=LabelledSet(name="p", paths=(), labels=(0, 0), sha256="0" * 64),
            ),
        }  # fmt: skip
        return jobs[kind]

    def _blob(self) -> Blob:
        path = self.folder / "blob"
        path.write_text("an input")
        return self.repository.blobs.add(path)

    def set_case(self, case: str) -> None:
        (self.place / CASE).write_text(case)

    def check_refused(self, executor: Executor, kind: str, case: str) -> JobError:
        """Runs a worker that misbehaves; its job fails, and nothing leaked."""
        job = self.job(kind)
        self.set_case(case)
        with pytest.raises(JobError) as caught:
            executor.run(job, self.output, silent)
        assert not isinstance(caught.value, NotRunError)
        text = f"{caught.value} {caught.value.hint}"
        assert SECRET not in text
        assert "Traceback" not in text
        assert "exited" not in text  # the worker itself did what it was told to
        kept = self.folder / "kept"
        keep(self.output, kept)
        self.check_nothing_leaked(kept)
        assert (kept / "job.json").read_text() == job.model_dump_json(indent=1)
        return caught.value

    def check_nothing_leaked(self, kept: Path) -> None:
        assert self.host.read_text() == SECRET
        for root in (self.folder / "store", kept):
            for path in root.rglob("*"):
                assert not path.is_symlink()
                if path.is_file():
                    assert SECRET.encode() not in path.read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path)


@pytest.fixture
def small_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "engine", 2**12)


@pytest.mark.usefixtures("small_engines")
@pytest.mark.parametrize(("executor", "kind", "case"), TABLE)
def test_a_worker_that_misbehaves_fails_its_job(
    executor: str, kind: str, case: str, bench: Bench
) -> None:
    refused = bench.check_refused(EXECUTORS[executor](bench.folder), kind, case)
    assert refused.hint


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_that_behaves_is_taken_at_its_word(executor: str, bench: Bench) -> None:
    """The same worker: what fails above fails for its misbehaviour alone."""
    bench.set_case("nothing")
    outcome = EXECUTORS[executor](bench.folder).run(bench.job("build"), bench.output, silent)
    assert (outcome.folder / "engine").read_bytes() == ONNX
    assert (outcome.folder / "cache").read_text() == "made here: cache"
    assert bench.host.read_text() == SECRET  # job.json was a link to it
    assert not (outcome.folder / "job.json").is_symlink()


@pytest.mark.parametrize("kind", MISBEHAVIOURS)
def test_every_kind_of_result_is_accepted(kind: str, bench: Bench) -> None:
    bench.set_case("nothing")
    local(bench.folder).run(bench.job(kind), bench.output, silent)


# On a cluster


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the workers of the cluster: their programs and the case that they act out."""
    folder = tmp_path_factory.mktemp("workers")
    fake_builder.write_launcher(folder / "probed")
    python = folder / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'*builders.worker*) env > "{folder}/environment"\n'
        f'  exec "{sys.executable}" "{SCRIPT}" "{folder / CASE}" "$@";;\n'
        f'*) env > "{folder}/probe-environment"; exec "{folder}/probed" "$@";;\nesac\n'
    )
    python.chmod(0o755)
    # Exports run in the worker's own Python, which reads this when it starts.
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if sys.orig_argv[1:3] == ['-m', 'builders.worker']:\n"
        f"    os.execv(sys.executable, [sys.executable, {str(SCRIPT)!r}, {str(folder / CASE)!r}, "
        "*sys.orig_argv[3:]])\n"
    )
    return folder


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[DaskExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
        for name in SECRETS:
            patch.setenv(name, SECRET)
        with Cluster(place, None) as made:
            made.work("--cpu-slots", "1", "--builder-python", str(place / "python"))
            executor = made.executor(1, timeout=60)
            yield executor
            executor.stop()


@pytest.mark.parametrize(("kind", "case"), ON_A_CLUSTER)
def test_a_worker_of_a_cluster_that_misbehaves_fails_its_job(
    kind: str, case: str, cluster: DaskExecutor, place: Path, tmp_path: Path
) -> None:
    Bench(tmp_path, place).check_refused(cluster, kind, case)


@pytest.mark.parametrize("kind", MISBEHAVIOURS)
def test_a_worker_of_a_cluster_that_behaves_is_taken_at_its_word(
    kind: str, cluster: DaskExecutor, place: Path, tmp_path: Path
) -> None:
    """The next job on the worker that misbehaved before: no restart is needed."""
    bench = Bench(tmp_path, place)
    bench.set_case("nothing")
    cluster.run(bench.job(kind), bench.output, silent)
    assert bench.host.read_text() == SECRET


def test_no_needless_secret_reaches_a_clusters_worker_or_what_it_starts(
    cluster: DaskExecutor, place: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, place)
    bench.set_case("nothing")
    cluster.run(bench.job("build"), bench.output, silent)
    inherited = cluster._client.run(subprocess.check_output, ["env"])  # from the nanny's worker
    (environment,) = (text.decode().splitlines() for text in inherited.values())
    names = {line.partition("=")[0] for line in environment}
    assert names & {*SECRETS, "PATH"} == {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PATH"}
    for file in ("environment", "probe-environment"):
        text = (place / file).read_text()
        assert "PATH=" in text
        assert SECRET not in text


@pytest.mark.parametrize(
    "event",
    [None, (), (1.0,), (1.0, None), (1.0, "{"), (1.0, "[]"), (1.0, "{}"), (1.0, '{"task": []}'),
     (1.0, "[" * 100_000), (1.0, b"\xff"), (1.0, '{"task": "t", "log": 7}'),
     (1.0, '{"task": "t", "log": "\\ud800"}'), 7],
)  # fmt: skip
def test_a_malformed_event_of_a_cluster_is_ignored(event: object) -> None:
    assert _parse_event(event) is None


def test_a_message_of_a_worker_arrives_as_it_was_sent() -> None:
    text = Message(task="t", log="1 \u00b5s\n").to_json()
    assert text == '{"task": "t", "log": "1 \\u00b5s\\n"}'
    assert _parse_event((1.0, text)) == Message(task="t", log="1 \u00b5s\n")


def test_malformed_events_do_not_stop_a_job(
    cluster: DaskExecutor, place: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, place)
    bench.set_case("nothing")
    for event in (None, (1.0, "{"), (1.0, '{"task": {}}')):
        cluster._receive(event)  # type: ignore[arg-type]
    cluster.run(bench.job("build"), bench.output, silent)


@pytest.mark.parametrize(
    "line",
    ["[]", "7", "{}", "[" * 100_000, '{"stage": {}, "done": 0, "total": 1, "note": ""}',
     '{"stage": "build", "done": "x", "total": 1, "note": ""}'],
)  # fmt: skip
def test_a_malformed_line_is_no_event(line: str) -> None:
    assert Event.from_line(line) is None


def answer(**changes: object) -> Answer:
    result = {
        "kind": "build", "engine": "engine", "facts": {}, "precision_proven": False,
        "verification": None, "benchmark": [], "machine": {}, "cost": {},
    }  # fmt: skip
    made = {"result": json.dumps(result), "files": {"engine": blob(size=1)}}
    return Answer.model_validate(made | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {
            "files": {
                "engine": blob(size=1),
                "more": blob(size=1),
            }
        },
        {"files": {"engine": blob(size=LIMITS["engine"] + 1)}},
        {"files": {"engine": blob(size=-1)}},
        {"result": "[" * 10_000},
        {"result": " " * (LIMITS["result"] + 1)},
        {"result": '{"kind": "reference", "file": "engine", "cost": {}}'},
    ],
    ids=["no file", "more files", "large", "negative", "deep", "long", "another kind"],
)
def test_an_answer_of_a_cluster_is_not_trusted(changes: dict[str, object], bench: Bench) -> None:
    with pytest.raises(JobError) as caught:
        _lay_out(answer(**changes), bench.job("build"), bench.output)
    assert type(caught.value) is JobError
    assert not (bench.output / "engine").exists()


def test_an_answer_names_no_path() -> None:
    for name in ("/etc/x", "../x", "a/b", "..", "", "log.txt", "x\n"):
        with pytest.raises(ValueError, match=r"files"):
            answer(files={name: blob(size=1)})


def test_no_secret_is_in_a_workers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, SECRET)
    seen = tmp_path / "seen"
    code = f"import json, os; json.dump(dict(os.environ), open({str(seen)!r}, 'w'))"
    with pytest.raises(JobError):
        LocalExecutor(60, (sys.executable, "-c", code)).run(
            bench.job("build"), bench.output, silent
        )
    environment = json.loads(seen.read_text())
    assert not environment.keys() & set(SECRETS)
    assert environment["PATH"] == os.environ["PATH"]
    bucket = worker_environment("s3://b/p", weights=True, environment=dict(os.environ))
    assert bucket.keys() & set(SECRETS) == {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN"}


def test_a_python_that_is_probed_gets_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, SECRET)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nenv > "{tmp_path}/seen"\necho "{{}}"\n')
    python.chmod(0o755)
    assert toolchains_of(str(python)) == {}
    assert imports(str(python), "json") is None
    text = (tmp_path / "seen").read_text()
    assert "PATH=" in text
    assert SECRET not in text
