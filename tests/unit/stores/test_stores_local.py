"""A local directory, and what can go wrong with one."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.paths import ROOT

from zoo.stores import LocalStore, credentials_of, folder_of, open_store
from zoo.util.errors import RepositoryError

NOBODY = 65534
LATER = timedelta(minutes=1)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does, had without one: writing beyond ``size`` bytes fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_full_disk_leaves_nothing_visible(store: LocalStore, tmp_path: Path) -> None:
    store.put("small", b"x")
    with (
        files_of_at_most(1 << 16),
        pytest.raises(RepositoryError, match=r"store.*large"),
    ):
        store.put("large", bytes(1 << 20))
    assert [entry.key for entry in store.list("")] == ["small"]
    assert not list(store.abandoned(datetime.now(timezone.utc) + LATER))
    assert store.put("large", bytes(1 << 20))
    with files_of_at_most(1 << 16), pytest.raises(RepositoryError, match=str(tmp_path / "copy")):
        store.fetch("large", tmp_path / "copy")
    store.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 1 << 20


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder that is somebody else's while the test runs, root or not."""
    folder = Path(tempfile.mkdtemp())
    LocalStore(folder).put("a/k", b"x")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_who_may_not_write_is_told(foreign: Path) -> None:
    store = LocalStore(foreign)
    assert store.get("a/k") == b"x"
    hints = set()
    for refused in (
        lambda: store.put("a/new", b"x"),
        lambda: store.delete("a/k"),
        lambda: store.lock("publish").__enter__(),
        store.check_writable,
    ):
        with pytest.raises(RepositoryError, match=str(foreign)) as caught:
            refused()
        hints.add(caught.value.hint)
    assert len(hints) == 1
    assert None not in hints


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


def test_who_waits_in_vain_is_told_for_whom(store: LocalStore, tmp_path: Path) -> None:
    told: list[str] = []
    impatient = LocalStore(tmp_path / "store", say=told.append, patience=0.1)
    with store.lock("publish"):
        message = f"'publish'.* {os.getpid()}"
        with pytest.raises(RepositoryError, match=message), impatient.lock("publish"):
            pass
    with impatient.lock("publish"):
        pass


def test_an_object_is_as_old_as_its_place(store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "made long ago"
    source.write_bytes(b"x")
    os.utime(source, (0, 0))
    store.put_file("k", source)
    (entry,) = store.list("")
    assert datetime.now(timezone.utc) - entry.modified < LATER


def test_a_failed_write_leaves_nothing(store: LocalStore) -> None:
    store.put("a", b"a file where a folder is needed")
    with pytest.raises(RepositoryError, match="a/b"):
        store.put("a/b", b"x")
    assert [entry.key for entry in store.list("")] == ["a"]


def test_a_file_url_names_a_directory(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/with%20space").put("k", b"x")
    assert (tmp_path / "with space" / "k").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("url", "folder", "credentials"),
    [
        ("_repository", "_repository", None),
        ("file:///with%20space", "/with space", None),
        ("FILE://localhost/x", "/x", None),
        ("s3://bucket/prefix", None, "AWS_"),
        ("https://host/path", None, None),
        ("memory://", None, None),
        ("invented://x", None, None),
    ],
)
def test_what_kind_of_store_a_url_names(
    url: str, folder: str | None, credentials: str | None
) -> None:
    assert folder_of(url) == (None if folder is None else Path(folder))
    assert credentials_of(url) == credentials
