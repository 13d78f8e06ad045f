"""Many large photos at once, through the command: the memory of all its processes is bounded."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT, TESTS

pytestmark = pytest.mark.full

SIDE = 7000
PIXELS = 3 * SIDE * SIDE
"""Bytes of a decoded photo; Pillow has four thirds of it, twice for a moment."""

IDLE = 100 << 20
"""More than a decoder has without a photo."""

PHOTOS = 8

COMMAND = """
import sys
from support.caft import toy
import zoo.caft.room
from zoo.cli import caft, main
caft._extractor = lambda *arguments: toy()
zoo.caft.room.available_memory = lambda: 1 << 30
sys.exit(main.main())
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    file, data = io.BytesIO(), tmp_path / "data"
    Image.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(file, "PNG", compress_level=1)
    data.mkdir()
    for number in range(PHOTOS):
        (data / f"{number}.png").write_bytes(file.getvalue() + b"%d" % number)  # none is the same
    return data


@pytest.mark.parametrize("workers", [4, 6])  # in threads, and in processes
def test_many_large_photos_need_the_memory_of_one(photos: Path, workers: int) -> None:
    assert peak(photos, workers) < 4 * PIXELS + workers * IDLE


def peak(photos: Path, workers: int) -> int:
    """Returns the most memory that a pass used, of all its processes."""
    options = ("features", photos, "--model", "toy", "-o", "cache", "--workers", workers)
    most = 0
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=photos.parent,
        env={"PYTHONPATH": f"{ROOT}:{TESTS}", "HOME": str(photos.parent), "PATH": ""},
    ) as command:  # fmt: skip
        while command.poll() is None:
            most = max(most, sum(map(memory, [command.pid, *children(command.pid)])))
            time.sleep(0.02)
        assert command.stdout is not None
        assert command.stderr is not None
        shown = command.stdout.read()
        assert f"{PHOTOS} images" in shown, shown + command.stderr.read()
        assert "0 skipped" in shown
    return most


def children(process: int) -> list[int]:
    """Returns the processes that a process started."""
    try:
        tasks = list(Path(f"/proc/{process}/task").glob("*/children"))
        return [int(number) for task in tasks for number in task.read_text().split()]
    except OSError:  # it has just ended
        return []


def memory(process: int) -> int:
    """Returns the memory of a process in bytes, without what it shares with files."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return sum(int(size) << 10 for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status))
