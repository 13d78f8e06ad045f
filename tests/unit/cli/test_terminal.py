"""Output on a terminal: what others wrote is shown, not obeyed; a user without a home."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from builders.jobs.progress import Display, Event
from zoo.cli.command import Parser
from zoo.cli.main import run_cli
from zoo.util import folders
from zoo.util.errors import DatasetError, UsageError
from zoo.util.terminal import harmless

HOSTILE = "title \x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egnp.\x7f end"


def command(run: Any) -> Parser:
    parser = Parser(prog="zoo")
    parser.set_defaults(command=run)
    return parser


def controls(text: str) -> list[str]:
    return [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0
            or c == "\u202e"]  # fmt: skip


def test_standard_output_has_no_controls(capsys: pytest.CaptureFixture[str]) -> None:
    def show(options: Any) -> int:
        print(HOSTILE, "é 日本\tcolumn")
        print(json.dumps({"title": HOSTILE}, ensure_ascii=False))
        return 0

    before = sys.stdout
    assert run_cli(command(show), []) == 0
    assert sys.stdout is before
    text, as_json, _ = capsys.readouterr().out.split("\n")
    assert not controls(text + as_json)
    assert "\\u001b]0;owned\\u0007" in text
    assert "é 日本\tcolumn" in text
    assert json.loads(as_json) == {"title": HOSTILE}


def test_errors_have_no_controls(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: Any) -> int:
        raise DatasetError(HOSTILE, hint=HOSTILE)

    def miss(options: Any) -> int:
        raise FileNotFoundError(2, "no such file", HOSTILE)

    assert run_cli(command(fail), []) == DatasetError.exit_code
    assert run_cli(command(miss), []) == 1
    assert not controls(capsys.readouterr().err)


def test_ordinary_text_stays_as_it_is() -> None:
    text = "ViT-B/16: 0.5 µs, 日本, é\n\tline"
    assert harmless(text) == text


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(folders.Path, "home", no_home)
    for folder, variable in (
        (folders.cache_folder, "XDG_CACHE_HOME"),
        (folders.config_folder, "XDG_CONFIG_HOME"),
    ):
        monkeypatch.delenv(variable, raising=False)
        with pytest.raises(UsageError) as raised:
            folder()
        assert "ZOO_HOME" in (raised.value.hint or "")
        monkeypatch.setenv(variable, "/somewhere")
        assert str(folder()) == "/somewhere"


def test_a_farm_draws_on_a_terminal_and_shows_what_a_worker_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bars need the controls that are shown everywhere else."""
    drawn = io.StringIO()
    monkeypatch.setattr(sys, "stdout", drawn)
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take any stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    def work(options: Any) -> int:
        display = Display()
        with display.job("model") as report:
            report(Event(stage="export", done=0, total=2, note=HOSTILE))
        display.say(HOSTILE)
        return 0

    assert run_cli(command(work), []) == 0
    text = drawn.getvalue()
    assert "\x1b[2K" in text  # of the bar, which is erased in the end
    assert "\\u001b[2K" not in text
    assert text.count("\\u001b]0;owned") >= 2
    assert "\x1b]0;" not in text
