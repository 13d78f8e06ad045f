"""A local store after a writer was killed."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.paths import ROOT

from zoo.stores import LocalStore

LATER = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_what_a_killed_writer_leaves_can_be_removed(store: LocalStore) -> None:
    code = f"""
import os, signal
from pathlib import Path
from zoo.stores import local
local._place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
local.LocalStore(Path({str(store.root)!r})).put("k", b"x")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert list(store.list("")) == []
    now = datetime.now(timezone.utc)
    with store.lock("publish"):  # is no such thing
        assert not list(store.abandoned(now - LATER))
        (left,) = store.abandoned(now + LATER)
        store.discard(left)
        store.discard(left)
        assert not list(store.abandoned(now + LATER))
