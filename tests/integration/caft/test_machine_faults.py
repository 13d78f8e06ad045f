"""Faults of the machine in a pass: tried again, or a stop that says so; never a photo left out."""

from __future__ import annotations

import errno
import io
import itertools
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.caft import PREPROCESS, folder, photo, toy

from zoo.caft import FeatureCache, cache_features, decode_process
from zoo.caft.attempts import Attempts
from zoo.caft.augment import Augmentation
from zoo.caft.card import Identity
from zoo.caft.decode import host_decoder
from zoo.caft.decode_process import DecodeProcess
from zoo.caft.engine_process import _portable
from zoo.caft.file_read import FileRead
from zoo.caft.packing import pack
from zoo.caft.predictions import PhotoPaths, photo_features
from zoo.caft.room import LARGE, Room
from zoo.caft.sample import Sample
from zoo.caft.sources import open_source
from zoo.cli.command import Parser
from zoo.cli.main import run_cli
from zoo.inference import preprocess
from zoo.inference.preprocess import decoded_size
from zoo.util import faults
from zoo.util.errors import RunError
from zoo.util.faults import MachineError

FAULTS: dict[str, Callable[[], Exception]] = {
    "memory": MemoryError,
    "files": lambda: OSError(errno.EMFILE, "Too many open files"),
    "disk": lambda: OSError(errno.EIO, "Input/output error"),
    "processes": lambda: OSError(errno.EAGAIN, "Resource temporarily unavailable"),
    "threads": lambda: RuntimeError("can't start new thread"),
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PAUSES", (0.0, 0.0))


class Failing:
    """Calls a function, and fails before it at some of the calls."""

    def __init__(self, work: Any, fault: Callable[[], Exception], fails: Callable[[int], bool]):
        self._work, self._fault, self._fails = work, fault, fails
        self._count = itertools.count()
        self.failed = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._fails(next(self._count)):
            self.failed += 1
            raise self._fault()
        return self._work(*arguments, **named)


def read_fails(
    monkeypatch: pytest.MonkeyPatch, fault: str, fails: Callable[[int], bool]
) -> Failing:
    """Has reads of files fail."""
    failing = Failing(FileRead.__call__, FAULTS[fault], fails)
    monkeypatch.setattr(FileRead, "__call__", lambda self: failing(self))
    return failing


def decoding_fails(
    monkeypatch: pytest.MonkeyPatch, fault: str, fails: Callable[[int], bool]
) -> Failing:
    """Has Pillow fail at the pixels, so that the error is wrapped as a damaged photo's is."""
    failing = Failing(preprocess.as_rgb, FAULTS[fault], fails)
    monkeypatch.setattr(preprocess, "as_rgb", failing)
    return failing


Inject = Callable[[pytest.MonkeyPatch, str, Callable[[int], bool]], Failing]


@pytest.mark.parametrize("inject", [read_fails, decoding_fails])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_costs_no_photo(
    fault: str, inject: Inject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "data")
    cache_features(data, toy(), tmp_path / "sound")
    failing = inject(monkeypatch, fault, lambda number: number % 3 == 0)
    card, state = cache_features(data, toy(), tmp_path / "c", batch=4, workers=4)
    assert failing.failed >= 5
    assert (card.samples, card.bad, state.bad) == (15, 0, 0)
    expected, found = (FeatureCache(tmp_path / name) for name in ("sound", "c"))
    assert np.allclose(expected.features, found.features, atol=1e-6)
    assert list(expected.names()) == list(found.names())


@pytest.mark.parametrize("inject", [read_fails, decoding_fails])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_lasts_stops_the_pass_which_can_be_resumed(
    fault: str, inject: Inject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "data")
    with monkeypatch.context() as patched:
        inject(patched, fault, lambda number: number >= 6)
        with pytest.raises(MachineError) as raised:
            cache_features(data, toy(), tmp_path / "c", batch=2, workers=1)
    assert raised.value.exit_code != 0
    assert raised.value.hint
    card, state = cache_features(data, toy(), tmp_path / "c")
    assert (card.samples, card.bad, state.bad) == (15, 0, 0)


def test_a_fault_while_a_folder_is_listed_is_no_other_kind_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "data", classes=1)
    (data / "class0" / "0.png").rename(data / "class0" / "nameless")
    read_fails(monkeypatch, "files", lambda number: True)
    with pytest.raises(MachineError, match="nameless"):
        list(open_source(data))


def test_photos_that_are_named_are_not_skipped_through_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(1).save(tmp_path / "a.png")
    read_fails(monkeypatch, "disk", lambda number: True)
    skipped: list[Any] = []
    extractor = toy()
    made = Identity.of(extractor, "fp32", Augmentation())
    with pytest.raises(MachineError, match=r"a\.png"):
        list(
            photo_features(
                extractor, made, PhotoPaths([str(tmp_path / "a.png")]), lambda *a: skipped.append(a)
            )
        )
    assert skipped == []


@pytest.mark.parametrize("send", [_portable, lambda sample: pack(sample, "ignore")])
@pytest.mark.parametrize("lasts", [False, True])
def test_items_that_another_process_or_machine_gets_are_read_again(
    send: Callable[[Sample], Any], lasts: bool
) -> None:
    failing = Failing(lambda: photo(1), MemoryError, lambda number: lasts or number == 0)
    sample = Sample(name="a", label=None, read=failing)
    if lasts:
        with pytest.raises(MachineError):
            send(sample)
    else:
        send(sample)
    assert failing.failed == (3 if lasts else 1)


def children_of(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        found = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in tasks]
    except OSError:
        return []
    return [int(child) for text in found for child in text.split()]


class Killer:
    """Kills decoding processes of this one, at random, and at most so many times."""

    def __init__(self, most: int) -> None:
        self.killed, self._most = 0, most
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        random = np.random.default_rng(25)
        before: set[int] = set()  # one that is starting would end the pass, as it should
        while not self._stop.wait(0.02) and self.killed < self._most:
            decoding = {child for child in children_of(os.getpid()) if self._decodes(child)}
            running, before = sorted(decoding & before), decoding
            if running:
                os.kill(int(random.choice(running)), signal.SIGKILL)
                self.killed += 1
                self._stop.wait(0.3)  # its replacement has to start

    def _decodes(self, pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            mapped = "memfd:pixels" in Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return False
        return b"zoo.caft.decode_process" in command and mapped


def through_processes(data: Path, workers: int = 2) -> Iterator[Any]:
    decoder = host_decoder(PREPROCESS, Augmentation(), samples=8, workers=workers, processes=True)
    for batch in decoder.batches(open_source(data)):
        yield from (
            (one.sample.name, one.sha256, one.error, row.copy())
            for one, row in zip(batch.outcomes, batch.images, strict=True)
        )


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd_create")
def test_killed_decoders_cost_no_photo(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=2, each=60)
    expected = list(through_processes(data))
    with Killer(most=3) as killer:
        found = []
        for row in through_processes(data):
            found.append(row)
            deadline = time.monotonic() + 0.5  # gives the killer its turns
            while killer.killed < 3 and len(found) % 30 == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
    assert killer.killed >= 1
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert all(row[2] is None for row in found)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one[3], other[3])


def big(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd_create")
def test_a_process_without_memory_says_so_and_the_photo_is_not_at_fault() -> None:
    process, room = DecodeProcess(PREPROCESS, Augmentation()), Room()
    try:
        process.decode(big(64), room)
        child = process._process
        assert child is not None
        used = int(Path(f"/proc/{child.pid}/statm").read_text().split()[0]) * 4096
        limit = used + (96 << 20)
        resource.prlimit(child.pid, resource.RLIMIT_AS, (limit, limit))
        with pytest.raises(MachineError, match="out of memory"):
            process.decode(big(6000), room)
        assert process.decode(big(64), room)  # it still decodes what fits
    finally:
        process.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd_create")
def test_a_photo_that_crashes_its_decoder_every_time_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "data", classes=1, each=3)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(
        "import os, signal\nfrom PIL import Image\n"
        "def look(file, name):\n"
        "    if file.read().endswith(b'CRASH'):\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    raise SyntaxError('for the reader of PNG files')\n"
        "Image.register_open('ODD', look, lambda start: start.startswith(b'\\x89PNG'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    with (data / "class0" / "1.png").open("ab") as file:
        file.write(b"CRASH")
    rows = list(through_processes(data))
    assert [error is None for _, _, error, _ in rows] == [True, False, True]


def test_after_a_fault_half_as_many_are_decoded_at_once() -> None:
    attempts, lock = Attempts(8), threading.Lock()
    running = most = 0
    failed: set[int] = set()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            beside = running
        time.sleep(0.002)
        with lock:
            running -= 1
        if beside > 2:  # memory for two
            failed.add(number)
            raise MemoryError
        return number

    def thread(first: int) -> None:
        results.extend(attempts.run(lambda n=n: work(n), str(n)) for n in range(first, 80, 8))  # type: ignore[misc]

    results: list[int] = []
    threads = [threading.Thread(target=thread, args=(first,)) for first in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(results) == list(range(80))
    assert attempts.faults == len(failed) >= 1
    assert attempts.most <= 4


def test_large_photos_share_the_room_and_small_ones_do_not_wait() -> None:
    room = Room(2 * LARGE)
    held = most = 0
    lock = threading.Lock()

    def decode() -> None:
        nonlocal held, most
        with room.taken(LARGE):
            with lock:
                held += 1
                most = max(most, held)
            time.sleep(0.005)
            with lock:
                held -= 1

    threads = [threading.Thread(target=decode) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most <= 2
    with room.taken(100 * LARGE), room.taken(LARGE - 1):  # larger than the room: alone
        pass


def test_the_memory_of_a_photo_is_known_from_its_header() -> None:
    assert decoded_size(big(1000)) >= 8 * 1000 * 1000
    assert decoded_size(b"no photo") == 0
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(file, "JPEG")
    assert decoded_size(file.getvalue(), 448) < decoded_size(file.getvalue()) / 10


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd_create")
def test_processes_wait_for_room_for_large_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched(Room):
        def taken(self, size: int) -> Any:
            asked.append(size)
            return super().taken(size)

    process = DecodeProcess(PREPROCESS, Augmentation())
    try:
        process.decode(big(64), Watched())
        assert asked == []
        process.decode(big(4200), Watched())
        assert asked == [decoded_size(big(4200))]
        with pytest.raises(RunError):
            process.decode(big(4200)[:2000], Watched())
        assert process.decode(big(64), Watched())
    finally:
        process.close()
    assert decode_process.LARGE == LARGE


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_command_without_memory_or_threads_ends_with_a_sentence(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Any) -> int:
        raise error

    parser = Parser(prog="zoo")
    parser.set_defaults(command=fail)
    assert run_cli(parser, []) == MachineError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
