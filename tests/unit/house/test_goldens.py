"""Goldens: a message that changed is noticed, and what differs from run to run is hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import goldens
from support.goldens import assert_golden


def test_a_changed_message_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "GOLDENS", tmp_path)
    monkeypatch.delenv("UPDATE_GOLDENS", raising=False)
    with pytest.raises(AssertionError, match="no golden"):
        assert_golden("room/what", "text")
    monkeypatch.setenv("UPDATE_GOLDENS", "1")
    assert_golden("room/what", f"two lines\nin {tmp_path}  \n", {tmp_path: "FOLDER"})
    monkeypatch.delenv("UPDATE_GOLDENS")
    assert_golden("room/what", "two lines\nin FOLDER")
    with pytest.raises(AssertionError):
        assert_golden("room/what", "two lines")
