"""The docker executor on a real engine: ``make test-docker``, as root; nothing is faked.

It is not among the other tests: it needs root and minutes, and makes a Debian.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker_engine import RTX, DockerEngine
from support.installed import installed_inputs
from support.make_farm import Counts, Farm, counts
from support.models import LITE
from support.paths import DATA, MANIFESTS, ROOT

from builders.executors.docker import DockerExecutor
from builders.jobs.messages import BuildJob, BuildOutput
from builders.jobs.progress import Event, silent
from zoo.repository.repository import Repository
from zoo.runtime.header import read_file_header
from zoo.schema.targets import Arch, RuntimeLine
from zoo.stores import open_store
from zoo.util.errors import JobError, TargetError, UsageError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

TOY = DATA / "toy.onnx"
MIB = 2**20


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    with DockerEngine(tmp_path_factory.mktemp("docker")) as made:
        made.build()
        yield made


@pytest.fixture(autouse=True)
def on_engine(engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)


def a_job(store: str, folder: Path) -> BuildJob:
    repository = Repository(open_store(store))
    onnx = folder / "toy.onnx"
    shutil.copy(TOY, onnx)
    blob = repository.blobs.add(onnx)
    return BuildJob(
        inputs=installed_inputs("rtx", "sm86"),
        onnx=blob,
        parameters=216,
        verification=None,
        store=store,
    )


def output_in(folder: Path) -> Path:
    made = folder / "output"
    made.mkdir(mode=0o700)
    return made


def sleepy(engine: DockerEngine, code: str) -> None:
    """Makes an image of the same name whose worker does something else."""
    recipe = f"FROM {RTX.tag}\nENV PYTHONPATH=/other\nCOPY builders /other/builders\n"
    folder = engine.folder / "other"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "builders").mkdir(parents=True)
    (folder / "builders" / "__init__.py").touch()
    (folder / "builders" / "worker.py").write_text(code)
    (folder / "Dockerfile").write_text(recipe)
    engine.docker("build", "--network=none", f"--tag={RTX.tag}", folder)


@pytest.fixture
def other_worker(engine: DockerEngine) -> Iterator[str]:
    """Lets a test replace the worker of the image, until the test is over."""
    before = engine.docker("image", "inspect", "--format={{.Id}}", RTX.tag)
    yield before
    engine.docker("tag", before, RTX.tag)


@pytest.fixture
def nothing_left(engine: DockerEngine) -> Iterator[None]:
    yield
    assert engine.docker("ps", "--all", "--quiet") == ""


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_an_engine_is_built_in_its_image(
    where: str, engine: DockerEngine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = str(tmp_path / "store") if where == "directory" else request.getfixturevalue("s3")
    job, seen = a_job(store, tmp_path), list[Event]()
    output = output_in(tmp_path)
    result = DockerExecutor().run(job, output, seen.append).result
    assert isinstance(result, BuildOutput)
    assert read_file_header(output / "engine").archs == ("sm86",)
    assert result.machine.image == engine.docker("inspect", "--format={{.Id}}", RTX.tag)
    assert [event.done for event in seen] == [0, 1]
    assert {path.stat().st_uid for path in output.rglob("*")} == {os.getuid()}
    assert (output / "job.json").read_text() == job.model_dump_json(indent=1)


@pytest.mark.usefixtures("nothing_left")
def test_make_zoo_builds_in_the_image_what_another_gpu_runs(
    engine: DockerEngine, tmp_path: Path
) -> None:
    """The whole way, with real weights: exported here, built there, published as pending."""
    farm = Farm(folder=tmp_path, manifests=MANIFESTS)
    asked = (f"MODELS={LITE}", "GPU=sm86,sm89", "PRECISION=fp16", "EXECUTOR=docker")
    made = farm.make(*asked)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "1 published" in made.stdout
    [record] = farm.repository.records(LITE)
    assert record.targets == ("sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16")
    [pending] = farm.repository.attestations(record.engine.sha256)
    image = engine.docker("image", "inspect", "--format={{.Id}}", RTX.tag)
    assert (pending.kind, pending.machine.image) == ("pending", image)
    again = farm.make(*asked)
    assert counts(again) == Counts(current=1), again.stdout + again.stderr


@pytest.mark.usefixtures("nothing_left")
def test_an_image_is_healthy_and_runs_as_nobody_special(engine: DockerEngine) -> None:
    config = json.loads(engine.docker("image", "inspect", "--format={{json .Config}}", RTX.tag))
    assert config["User"] == "1000:1000"
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    locked_up = ("--network=none", "--read-only", "--cap-drop=ALL", "--tmpfs=/tmp")
    engine.docker("run", "--rm", *locked_up, RTX.tag, *command)
    said = engine.docker("run", "--rm", *locked_up, RTX.tag)
    assert "zoo-farm" in said


PROBE = """
import os, pathlib, socket, sys
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "allowed"
job = pathlib.Path(sys.argv[1]).read_text()
store = pathlib.Path(job.split('"store": "')[1].split('"')[0])
found = [
    os.getuid(), sorted(name for _, name in socket.if_nameindex()),
    tried(lambda: socket.create_connection(("192.0.2.1", 80), 5)),
    tried(lambda: pathlib.Path("/opt/farm/x").touch()),
    tried(lambda: pathlib.Path("/etc/x").touch()),
    tried(lambda: (store / "x").touch()), tried(lambda: os.setuid(0)),
    tried(lambda: pathlib.Path("/tmp/x").touch()),
    tried(lambda: (pathlib.Path(sys.argv[2]) / "x").touch()),
]
print(*found, sep="; ", file=sys.stderr)
"""


@pytest.mark.usefixtures("other_worker", "nothing_left")
def test_a_container_is_locked_up(engine: DockerEngine, tmp_path: Path) -> None:
    sleepy(engine, PROBE)
    with pytest.raises(JobError, match="status 0"):
        DockerExecutor().run(a_job(str(tmp_path / "store"), tmp_path), output_in(tmp_path), silent)
    said = (tmp_path / "output" / "log.txt").read_text().strip()
    denied = "PermissionError"
    assert said == (f"1000; ['lo']; OSError; OSError; OSError; OSError; {denied}; allowed; allowed")


@pytest.mark.usefixtures("other_worker", "nothing_left")
@pytest.mark.parametrize(
    ("code", "limits", "words", "remedy"),
    [
        ("import time; time.sleep(600)", {"timeout": 4}, "stopped after 4 s", "TIMEOUT="),
        (
            f"data = [b'x' * {MIB} for _ in range(600)]",
            {"memory": 100 * MIB}, "more memory than the limit of 0.10 GiB", "MEMORY=",
        ),
        ("import ctypes; ctypes.string_at(0)", {}, "killed by SIGSEGV", "end of its log: begun"),
    ],
    ids=["time", "memory", "crash"],
)  # fmt: skip
def test_a_container_that_goes_wrong_is_ended(
    code: str,
    limits: dict[str, int],
    words: str,
    remedy: str,
    engine: DockerEngine,
    tmp_path: Path,
) -> None:
    sleepy(engine, f"import sys\nprint('begun', file=sys.stderr, flush=True)\n{code}\n")
    executor = DockerExecutor(**limits)  # type: ignore[arg-type]
    with pytest.raises(JobError, match=words) as caught:
        executor.run(a_job(str(tmp_path / "store"), tmp_path), output_in(tmp_path), silent)
    assert remedy in str(caught.value)
    assert "begun" in (tmp_path / "output" / "log.txt").read_text()


FARM = """
import signal, sys
from pathlib import Path
from builders.executors.docker import DockerExecutor
from builders.jobs.messages import parse_job
from builders.jobs.progress import silent
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
job = parse_job.validate_json((folder / "asked.json").read_text())
DockerExecutor().run(job, folder / "output", silent)
"""


@pytest.mark.usefixtures("other_worker", "nothing_left")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_farm_that_is_stopped_leaves_no_container(
    number: int, engine: DockerEngine, tmp_path: Path
) -> None:
    sleepy(engine, "import time; time.sleep(600)")
    output_in(tmp_path)
    job = a_job(str(tmp_path / "store"), tmp_path)
    (tmp_path / "asked.json").write_text(job.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FARM, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as farm:
        while not engine.docker("ps", "--quiet"):
            assert farm.poll() is None
            time.sleep(0.1)
        farm.send_signal(number)
    if number == signal.SIGKILL:
        DockerExecutor()  # the next farm removes what the one before could not


@pytest.mark.usefixtures("nothing_left")
def test_toolchains_are_those_of_the_images() -> None:
    executor = DockerExecutor()
    chosen = executor.choose_toolchains([Arch("sm86")], None)
    assert str(chosen[Arch("sm86")].line) == "rtx1.7"
    with pytest.raises(TargetError, match=r"caft-zoo/builder:trt11\.4") as caught:
        executor.choose_toolchains([Arch("sm86")], RuntimeLine.parse("11.4"))
    assert "make image TRT=11.4" in str(caught.value)
    with pytest.raises(UsageError, match=r"TRT=8\.6"):
        executor.choose_toolchains([Arch("sm86")], RuntimeLine.parse("8.6"))
    with pytest.raises(TargetError, match="caft-zoo/export"):
        executor.choose_toolchains([Arch("cpu")], None)
