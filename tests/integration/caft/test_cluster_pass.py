"""A pass over the workers of a real cluster, with TLS, against one in this process."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import folder, photo
from support.cluster_pass import Place, odd, place
from support.goldens import assert_golden, raises_golden
from support.paths import ROOT
from support.waiting import wait_for

from builders.executors.dask.certificates import make_certs
from zoo.caft import FeatureCache, cache_features, dispatch, packing, roster, workers
from zoo.caft.card import read_card
from zoo.caft.features import Pass
from zoo.caft.labels import LabelError
from zoo.caft.remote_engine import Engine
from zoo.caft.roster import Roster
from zoo.caft.sample import Sample
from zoo.util.errors import CacheError, ClusterError, DatasetError, RunError, UsageError
from zoo.util.version import __version__

HERE = ("--cpu-slots", "2", "--name", "here")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("farm"), HERE) as made:
        yield made


@pytest.fixture
def two(farm: Place) -> Place:
    """The cluster, once both workers are there: an earlier test may have killed one."""

    def are_two() -> bool:
        with farm.workers() as (workforce, _):
            return len(workforce.look()) == 2

    deadline = time.monotonic() + 60
    while not are_two():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return farm


def files(cache: Path) -> dict[str, bytes]:
    """What readers of a cache see."""
    names = ("features.npy", "labels.npy", "hashes.npy", "samples.jsonl", "sums.npy")
    return {name: (cache / name).read_bytes() for name in names}


def check_equal(farm: Place, data: Any, cache: Path, **options: Any) -> None:
    """Checks that a cache is to the last bit what a pass in this process makes."""
    with farm.here() as extractor:
        cache_features(data, extractor, cache.with_name("one"), **options)
    assert files(cache) == files(cache.with_name("one"))
    one, many = read_card(cache.with_name("one")), read_card(cache)
    assert one is not None
    assert many is not None
    assert many.model_copy(update={"seconds": one.seconds}) == one


def test_a_folder(two: Place, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", each=33)
    (data / "class1" / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (20000, 8)).save(data / "class0" / "thin.png")
    skipped: dict[str, str] = {}
    with two.workers() as (workforce, engine):
        card, state = cache_features(
            data, engine, tmp_path / "many", batch=4, augment=1, cluster=workforce,
            on_bad=skipped.__setitem__,
        )  # fmt: skip
        assert (card.samples, state.bad, card.complete) == (99, 2, True)
        _, again = cache_features(
            data, engine, tmp_path / "many", augment=1, batch=4, cluster=workforce
        )
    assert (again.found, again.images) == (99, 2)
    here: dict[str, str] = {}
    with two.here() as extractor:
        cache_features(
            data, extractor, tmp_path / "bad", batch=4, augment=1, on_bad=here.__setitem__
        )
    assert skipped == here
    check_equal(two, data, tmp_path / "many", batch=4, augment=1)
    assert two.said == [
        "toy: cpu-ort1.32-fp32 (verified): built for cpu, ONNX Runtime 1.32.0 is installed; "
        "on 2 workers"
    ]


def test_a_tar_is_read_in_ranges(two: Place, tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(30):
            for name, content in (
                (f"{number:04d}.png", png(photo(number))),
                (f"{number:04d}.cls", str(number % 3).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with two.workers() as (workforce, engine):
        cache_features(path, engine, tmp_path / "many", batch=4, cluster=workforce)
    check_equal(two, path, tmp_path / "many", batch=4)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Items:
    """A torch data set that can't be pickled, with every kind of image; one item raises."""

    classes = ("a", "b")

    def __init__(self, count: int) -> None:
        self._count = count
        self._not_picklable = lambda: None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = photo(index)
        turned = image.getexif()
        turned[0x0112] = 6
        file = io.BytesIO()
        image.save(file, "JPEG", exif=turned)
        kinds: list[Any] = [
            image, np.array(image), png(image), Image.open(file), image.convert("P"),
            image.convert("CMYK"), image.convert("LA"), np.array(image)[..., 0],
            np.array(image.convert("L"), np.uint16) * 257, np.zeros((0, 3, 3), np.uint8),
            image.convert("F"),
        ]  # fmt: skip
        if index % 12 == 11:
            raise KeyError("no such row")
        return kinds[index % 12], index % 2


def test_images_in_memory_are_sent(two: Place, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch": 4, "augment": 1, "exif": "apply"}
    skipped: list[tuple[str, str]] = []
    with two.workers() as (workforce, engine):
        card, _ = cache_features(
            Items(36), engine, tmp_path / "many", cluster=workforce,
            on_bad=lambda name, why: skipped.append((name, why)), **options,
        )  # fmt: skip
    assert (card.samples, len(skipped)) == (27, 9)
    assert ("000000011", "KeyError: 'no such row'") in skipped
    check_equal(two, Items(36), tmp_path / "many", **options)


def test_preprocessed_input_is_sent(two: Place, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = [(random.normal(size=(3, 32, 32)).astype(np.float32), n % 2) for n in range(30)]
    data[7] = (np.zeros((3, 8, 8), np.float32), 0)
    with two.workers() as (workforce, engine):
        _, state = cache_features(data, engine, tmp_path / "many", batch=4, cluster=workforce)
    assert state.bad == 1
    check_equal(two, data, tmp_path / "many", batch=4)


def test_results_are_in_order_although_parts_finish_out_of_order(
    two: Place, tmp_path: Path
) -> None:
    data = folder(tmp_path / "photos", classes=1, each=40)
    odd(data / "class0" / "0.png", "1.5")
    shown: list[int] = []
    with two.workers() as (workforce, engine):
        cache_features(
            data, engine, tmp_path / "many", batch=2, cluster=workforce,
            on_progress=lambda state: shown.append(state.images),
        )  # fmt: skip
    assert shown == sorted(shown)
    check_equal(two, data, tmp_path / "many", batch=2)


@pytest.mark.parametrize("act", ["worker", "engine"])
def test_what_dies_once_is_done_again(two: Place, tmp_path: Path, act: str) -> None:
    data = folder(tmp_path / "photos", each=30)
    odd(data / "class1" / "5.png", act, tmp_path / "marker")
    with two.workers() as (workforce, engine):
        card, state = cache_features(data, engine, tmp_path / "many", batch=2, cluster=workforce)
    assert (tmp_path / "marker").exists()
    assert (card.samples, state.images) == (90, 90)
    lost = [line for line in two.said if line.startswith("lost the worker here-cpu")]
    assert len(lost) == (act == "worker")
    check_equal(two, data, tmp_path / "many", batch=2)


def test_a_worker_that_is_killed_in_the_middle(two: Place, tmp_path: Path) -> None:
    """It is stopped first, so that it has parts when it is killed."""
    data = folder(tmp_path / "photos", each=40)
    timers: list[threading.Timer] = []
    with two.workers() as (workforce, engine):
        pid = next(iter(workforce._client.run(os.getpid).values()))

        def kill(state: Pass) -> None:
            if not timers:
                os.kill(pid, signal.SIGSTOP)
                timers.append(threading.Timer(2, os.kill, (pid, signal.SIGKILL)))
                timers[0].start()

        card, state = cache_features(
            data, engine, tmp_path / "many", batch=2, cluster=workforce, on_progress=kill
        )
    assert (card.samples, state.images) == (120, 120)
    assert sum(line.startswith("lost the worker here-cpu") for line in two.said) == 1
    check_equal(two, data, tmp_path / "many", batch=2)


@pytest.mark.parametrize("act", ["worker", "engine"])
def test_a_photo_that_kills_three_workers_ends_the_pass(
    two: Place, tmp_path: Path, act: str
) -> None:
    data = folder(tmp_path / "photos", classes=1, each=30)
    odd(data / "class0" / "25.png", act)
    names = sorted(path.name for path in (data / "class0").iterdir())
    before = names.index("25.png") // 3 * 3
    with two.workers() as (workforce, engine):
        with pytest.raises(RunError, match=r"3 .* 3 .* class0/") as caught:
            cache_features(data, engine, tmp_path / "many", batch=3, cluster=workforce)
        assert f"from class0/{names[before]} to class0/{names[before + 2]}: here-cpu" in str(
            caught.value
        )
        kept = FeatureCache(tmp_path / "many", check_complete=False)
        assert len(kept.labels) == before
        (data / "class0" / "25.png").unlink()
        card, state = cache_features(data, engine, tmp_path / "many", batch=3, cluster=workforce)
    assert (card.samples, state.found) == (29, before)


def test_a_worker_that_hangs_is_not_waited_for(
    two: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_SLOW", 1.0)
    data = folder(tmp_path / "photos", classes=1, each=20)
    odd(data / "class0" / "7.png", "20", tmp_path / "marker")
    with two.workers() as (workforce, engine):
        _, state = cache_features(data, engine, tmp_path / "many", batch=2, cluster=workforce)
    assert not (tmp_path / "marker.done").exists()  # one worker is still at it
    assert state.images == 20
    check_equal(two, data, tmp_path / "many", batch=2)
    wait_for(tmp_path / "marker.done")


def test_files_that_workers_do_not_see_are_sent(
    two: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "photos", each=30)
    (data / "class0" / "torn.png").write_bytes(b"none")
    monkeypatch.setattr(packing, "abspath", lambda path: f"/elsewhere{path}")
    monkeypatch.setattr("zoo.caft.dispatch.MOST_SENT", 20_000)  # parts are split
    monkeypatch.setattr("zoo.caft.parts.MOST_SENT", 20_000)
    with two.workers() as (workforce, engine):
        cache_features(data, engine, tmp_path / "many", batch=3, cluster=workforce)
    monkeypatch.undo()
    check_equal(two, data, tmp_path / "many", batch=3)
    sent = [line.partition(" can't read the files")[0] for line in two.said[1:]]
    assert sent
    assert set(sent) <= {"here-cpu0", "here-cpu1"}


def test_other_files_of_the_same_size_and_time_are_noticed(
    two: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(24):
        for kind, name in enumerate(("photos", "others")):
            path = tmp_path / name / "a" / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(number + 100 * kind).save(path)
            os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(packing, "abspath", lambda path: str(path).replace("photos", "others"))
    with two.workers() as (workforce, engine):
        cache_features(tmp_path / "photos", engine, tmp_path / "many", batch=3, cluster=workforce)
    monkeypatch.undo()
    check_equal(two, tmp_path / "photos", tmp_path / "many", batch=3)


def test_a_label_that_is_no_class(two: Place, tmp_path: Path) -> None:
    data = [(photo(n), n if n != 9 else 0.5) for n in range(12)]
    with two.workers() as (workforce, engine), pytest.raises(LabelError):
        cache_features(data, engine, tmp_path / "cache", batch=2, cluster=workforce)
    assert len(FeatureCache(tmp_path / "cache", check_complete=False).labels) == 9


def test_a_source_that_fails(two: Place, tmp_path: Path) -> None:
    """What came before is kept, and the next pass goes on from there."""
    paths = sorted(folder(tmp_path / "photos", each=7).rglob("*.png"))

    class Source:
        fails = True

        def __iter__(self) -> Iterator[Sample]:
            for number, path in enumerate(paths):
                if number == 10 and self.fails:
                    raise DatasetError("cut off")
                yield Sample(name=path.name + str(number), label="a", read=path.read_bytes)

    source = Source()
    with two.workers() as (workforce, engine):
        with pytest.raises(DatasetError, match="cut off"):
            cache_features(source, engine, tmp_path / "cache", batch=4, cluster=workforce)
        assert len(FeatureCache(tmp_path / "cache", check_complete=False).labels) == 10
        source.fails = False
        card, state = cache_features(source, engine, tmp_path / "cache", batch=4, cluster=workforce)
    assert (card.samples, state.images) == (21, 11)


def test_an_interrupt_leaves_the_workers_free(two: Place, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", each=20)

    def interrupt(state: Pass) -> None:
        raise KeyboardInterrupt

    before = {thread.name for thread in threading.enumerate()}
    with two.workers() as (workforce, engine):
        with pytest.raises(KeyboardInterrupt):
            cache_features(
                data, engine, tmp_path / "many", batch=2, cluster=workforce, on_progress=interrupt
            )
        left = {thread.name for thread in threading.enumerate()} - before
        assert not [name for name in left if name.startswith(("samples", "load", "send"))]
        card, state = cache_features(data, engine, tmp_path / "many", batch=2, cluster=workforce)
    assert 0 < state.found < 60
    assert card.samples == 60
    check_equal(two, data, tmp_path / "many", batch=2)


def test_answers_that_are_not_valid(
    two: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "photos")
    monkeypatch.setattr(workers, "run_part", zlib.compress)
    names: dict[object, str] = {"here-cpu0": "WORKER", "here-cpu1": "WORKER"}
    with (
        two.workers() as (workforce, engine),
        raises_golden(ClusterError, "caft/cluster-answers-not-valid", names, match="here-cpu"),
    ):
        cache_features(data, engine, tmp_path / "many", batch=2, cluster=workforce)
    assert len([line for line in two.said if line.startswith("left out here-cpu")]) == 2


def test_workers_of_another_version_are_left_out(
    farm: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "__version__", "9.9.9")
    hidden: dict[object, str] = {farm.cluster.address: "SCHEDULER"}
    with (
        raises_golden(ClusterError, "caft/cluster-without-usable-workers", hidden),
        farm.workers(patience=0.1),
    ):
        pass
    assert "9.9.9 (1)" in farm.said[0]


def only_here() -> str:
    return ""


def test_workers_without_this_package_are_left_out(
    farm: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "describe_worker", only_here)
    with (
        raises_golden(
            ClusterError,
            "caft/cluster-without-usable-workers",
            {farm.cluster.address: "SCHEDULER"},
        ),
        farm.workers(patience=0.1),
    ):
        pass
    assert re.search(rf"caft-zoo.*{re.escape(__version__)}", farm.said[0])


def test_a_worker_whose_rows_might_differ_is_left_out(
    two: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Roster.add

    def other(self: Roster, address: str, info: Any, text: str) -> None:
        if info["name"] == "here-cpu1":
            text = text.replace('"vectors":"', '"vectors":"avx9 ')
        add(self, address, info, text)

    monkeypatch.setattr(Roster, "add", other)
    data = folder(tmp_path / "photos", each=20)
    with two.workers() as (workforce, engine):
        cache_features(data, engine, tmp_path / "many", batch=2, cluster=workforce)
    assert len([line for line in two.said if line.startswith("left out here-cpu")]) == 1
    assert re.search(r"here-cpu1.* processor ", two.said[0])
    check_equal(two, data, tmp_path / "many", batch=2)


def test_a_repository_that_workers_do_not_see(two: Place, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos")
    with two.workers() as (workforce, engine):
        assert workforce.engine is not None
        workforce.engine = Engine(
            store="/no/such/store", anonymous=False, record=workforce.engine.record
        )
        with pytest.raises(ClusterError, match="/no/such/store") as caught:
            cache_features(data, engine, tmp_path / "many", cluster=workforce)
    assert "--store" in (caught.value.hint or "")


def test_features_that_are_not_finite(
    two: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pass in this process, if two workers say the same."""
    data = [(np.full((3, 32, 32), np.nan if n == 5 else n, np.float32), 0) for n in range(12)]
    with two.workers() as (workforce, engine), pytest.raises(CacheError) as caught:
        cache_features(data, engine, tmp_path / "many", batch=2, cluster=workforce)
    assert "000000005" in str(caught.value)
    with two.here() as extractor, pytest.raises(CacheError) as here:
        cache_features(data, extractor, tmp_path / "one", batch=2)
    assert str(here.value) == str(caught.value)


def test_an_extractor_of_a_cluster_runs_nothing_here(farm: Place) -> None:
    with farm.workers() as (_, engine), raises_golden(RunError, "caft/engine-of-a-cluster"):
        engine(photo(1))


def test_a_pass_is_on_gpus_or_on_a_cluster(farm: Place, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos")
    with farm.workers() as (workforce, engine):
        with raises_golden(UsageError, "caft/gpus-or-a-cluster"):
            cache_features(data, engine, tmp_path / "c", devices="all", cluster=workforce)
        workforce.engine = None
        with raises_golden(UsageError, "caft/cluster-of-another-engine"):
            cache_features(data, engine, tmp_path / "c", cluster=workforce)
    assert not (tmp_path / "c").exists()


def test_the_scheduler_is_lost(tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", each=40)
    (tmp_path / "own").mkdir()
    with place(tmp_path / "own", HERE) as own:
        with own.workers() as (workforce, engine):

            def kill(state: Pass) -> None:
                if own.cluster.scheduler.poll() is None:
                    own.cluster.kill_scheduler()

            with raises_golden(
                ClusterError, "caft/cluster-lost", {own.cluster.address: "SCHEDULER"}
            ):
                cache_features(
                    data, engine, tmp_path / "many", batch=2, cluster=workforce, on_progress=kill
                )
        kept = len(FeatureCache(tmp_path / "many", check_complete=False).labels)
        assert 0 < kept < 120
        with own.here() as extractor:
            card, state = cache_features(data, extractor, tmp_path / "many", batch=2)
        assert (card.samples, state.found) == (120, kept)


def test_there_are_no_workers(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with place(tmp_path / "own") as own:
        hidden: dict[object, str] = {own.cluster.address: "SCHEDULER"}
        with (
            raises_golden(ClusterError, "caft/cluster-without-workers", hidden),
            own.workers(patience=0.1),
        ):
            pass
        assert own.said == [f"waiting up to 0 s for a worker of {own.cluster.address}"]


# The command


class Command:
    """``zoo features`` on a cluster, in a process of its own."""

    def __init__(self, farm: Place, tmp_path: Path) -> None:
        self._farm, self._folder = farm, tmp_path
        self.cache = tmp_path / "cache"

    def arguments(self, data: Path, *more: str, certs: Path | None = None) -> list[str]:
        repository = self._farm.repository
        return [
            sys.executable, "-m", "zoo.cli", "features", str(data), "--model", "toy",
            "-o", str(self.cache), "--store", repository.store.url,
            "--trust", str(repository.ring.root_file), "--batch", "2",
            "--scheduler", self._farm.cluster.address,
            *(("--certs", str(certs)) if certs else ()), *more,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {**os.environ, "ZOO_HOME": str(self._folder / "user"), "PYTHONPATH": ""}

    def run(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*arguments, **options), cwd=ROOT, env=self.environment(),
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@pytest.fixture
def command(farm: Place, tmp_path: Path) -> Command:
    return Command(farm, tmp_path)


def test_the_command_is_killed_and_goes_on(two: Place, command: Command, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", classes=1, each=60)
    certs = two.cluster.certs
    odd(data / "class0" / "40.png", "3", tmp_path / "marker")
    with subprocess.Popen(
        command.arguments(data, certs=certs), cwd=ROOT, env=command.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as first:  # fmt: skip
        wait_for(command.cache / "samples.jsonl")
        first.kill()
    kept = (command.cache / "samples.jsonl").read_bytes().count(b"\n")
    assert 0 < kept < 60
    done = command.run(data, certs=certs)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"\b{kept} images$", done.stderr, re.MULTILINE)
    assert f"{60 - kept} images in " in done.stdout
    check_equal(two, data, command.cache, batch=2)


def test_the_command_is_interrupted(two: Place, command: Command, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", classes=1, each=60)
    odd(data / "class0" / "40.png", "3", tmp_path / "marker")
    with subprocess.Popen(
        command.arguments(data, certs=two.cluster.certs), cwd=ROOT, env=command.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        wait_for(command.cache / "samples.jsonl")
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert_golden("caft/interrupted", said.splitlines()[-1])
    assert "Traceback" not in said


def test_connections_that_are_refused(farm: Place, command: Command, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos")
    make_certs(tmp_path / "others")
    for code, words, arguments, certs in (
        (UsageError.exit_code, "needs certificates", (), None),
        (UsageError.exit_code, "ca.pem is missing", (), tmp_path / "none"),
        (ClusterError.exit_code, "no scheduler responds", (), tmp_path / "others"),
        (UsageError.exit_code, "can't be combined with --scheduler", ("--devices", "0"), None),
    ):
        done = command.run(data, *arguments, certs=certs)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert done.stderr.count("\n") <= 3
        assert not command.cache.exists()
    odd_address = command.arguments(data)
    odd_address[odd_address.index("--scheduler") + 1] = "farm"
    done = subprocess.run(
        odd_address, cwd=ROOT, env=command.environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2, "error: farm is not a scheduler's address"
    )  # fmt: skip
