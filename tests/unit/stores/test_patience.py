"""Deadlines for servers' answers."""

from __future__ import annotations

import time

import pytest

from zoo.stores import patience
from zoo.stores.patience import answered
from zoo.util.errors import RepositoryError


@pytest.mark.parametrize(("sent", "said"), [(0, "waiting for URL: no answer for 0 s\n"), (1, "")])
def test_who_waits_for_an_answer_is_told(
    sent: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "QUIET", 0.01)

    def work() -> int:
        time.sleep(0.1)
        return 7

    assert answered(work, "URL", sent=sent) == 7
    assert capsys.readouterr().err == said


def test_a_deadline_that_comes_first_says_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "ANSWER", 0.01)
    with pytest.raises(RepositoryError, match="did not finish"):
        answered(lambda: time.sleep(0.1), "URL")
    assert not capsys.readouterr().err
