"""Progress bars: what they say, on a terminal, in a notebook and in a log."""

from __future__ import annotations

import html
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from zoo.caft.progress import Counting, countable
from zoo.util import bars
from zoo.util.bars import Bar, amount_of, clock, mebibytes, open_bar


class Recorder:
    def __init__(self) -> None:
        self.drawn: list[tuple[str, float, float | None]] = []

    def draw(self, words: str, done: float, total: float | None) -> None:
        self.drawn.append((words, done, total))

    def say(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_bar_says_total_rate_and_time_left(now: list[float]) -> None:
    display = Recorder()
    bar = Bar(display, amount_of("image"))
    now[0] += 10
    bar.show(150, before=50)
    bar.total = 1150
    bar.show(150, before=50)
    assert [words for words, _, _ in display.drawn] == [
        "150 images, 10 images/s",
        "150 of 1,150 images, 10 images/s, 1:40 left",
    ]
    assert display.drawn[-1][1:] == (150, 1150)


def test_steps_of_a_download(now: list[float]) -> None:
    display = Recorder()
    bar = Bar(display, mebibytes, total=3 << 20)
    now[0] += 1
    bar.step(1 << 20)
    bar.step(1 << 20)
    assert display.drawn[-1][0] == "2.0 of 3.0 MiB, 2.0 MiB/s, 0:00 left"


def test_a_task_is_named_before_anything_is_done(now: list[float]) -> None:
    display = Recorder()
    bar = Bar(display, amount_of("image"), 8, "kNN")
    now[0] += 2
    bar.step(4)
    assert [words for words, _, _ in display.drawn] == [
        "kNN",
        "kNN: 4 of 8 images, 2 images/s, 0:02 left",
    ]


def test_words() -> None:
    assert [amount_of("epoch")(number) for number in (1, 2, 2.5, 1234)] == [
        "1 epoch", "2 epochs", "2.5 epochs", "1,234 epochs",
    ]  # fmt: skip
    assert [clock(seconds) for seconds in (0, 61, 3725)] == ["0:00", "1:01", "1:02:05"]


class ZMQInteractiveShell:
    """Named as the shell of a notebook's kernel."""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pages: list[str] = []

    class Handle:
        def update(self, page: dict[str, str], raw: bool) -> None:
            display(page, raw, display_id=True)

    def display(page: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        assert page["text/plain"] in html.unescape(page["text/html"])
        pages.append(page["text/html"])
        return Handle()

    package, shown = ModuleType("IPython"), ModuleType("IPython.display")
    fake: Any = package
    fake.get_ipython = ZMQInteractiveShell
    fake = shown
    fake.display = display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return pages


def test_a_notebook_shows_one_bar_that_moves(notebook: list[str], now: list[float]) -> None:
    assert bars.is_watched()
    with open_bar(amount_of("<image>"), 2) as bar:
        now[0] += 1
        bar.step()
        bar.step()
    assert len(notebook) == 2
    assert notebook[0].startswith("<progress value='1' max='2'></progress> 1 of 2 &lt;image&gt;s")
    assert notebook[1].startswith("<progress value='2' max='2'>")


def test_a_log_has_a_line_now_and_then(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_bar(amount_of("image")) as bar:
        for _ in range(25):
            now[0] += 1
            bar.step()
        bar.say("skipped a.jpg")
    assert capsys.readouterr().err.splitlines() == [
        "10 images, 1 image/s", "20 images, 1 image/s", "skipped a.jpg",
    ]  # fmt: skip


def test_samples_are_counted_in_a_thread() -> None:
    counting = Counting(range(1234))
    for _ in range(1000):
        if counting.total is not None:
            break
        time.sleep(0.01)
    assert counting.total == 1234
    assert Counting(None).total is None


def test_what_can_be_counted(tmp_path: Any) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").touch()
    assert len(list(countable(str(tmp_path)) or ())) == 1
    assert len(list(countable([1, 2, 3]) or ())) == 3
    assert countable(iter([1])) is None
