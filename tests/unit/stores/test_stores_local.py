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
from zoo.util.digest import sha256_file
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


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Files of the user who signs, which nobody else may write; a month old."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "root.pem").write_bytes(b"precious")
    os.utime(folder / "root.pem", (0, 0))
    os.utime(folder, (0, 0))
    return folder


def test_nothing_is_written_through_links_that_others_left(
    store: LocalStore, precious: Path, tmp_path: Path
) -> None:
    store.put("candidates/m/x", b"x")
    shutil.rmtree(store.root / "candidates")
    (store.root / "candidates").symlink_to(precious.parent)
    (tmp_path / "file").write_bytes(b"other")
    for refused in (
        lambda: store.put("candidates/keys/root.pem", b"other"),
        lambda: store.put("candidates/keys/new", b"other", if_absent=True),
        lambda: store.put_file("candidates/keys/new", tmp_path / "file"),
        lambda: store.delete("candidates/keys/root.pem"),
    ):
        with pytest.raises(RepositoryError, match="candidates is a link"):
            refused()
    store.put("direct", b"x")
    store.delete("direct")
    (store.root / "direct").symlink_to(precious / "root.pem")
    assert store.put("direct", b"other")  # in the place of the link
    assert {path.name: path.read_bytes() for path in precious.iterdir()} == {
        "root.pem": b"precious"
    }


def test_locks_and_leftovers_that_are_links_hurt_nothing(store: LocalStore, precious: Path) -> None:
    store.put("a", b"x")
    incoming, now = store.root / ".incoming", datetime.now(timezone.utc)
    (incoming / "publish.lock").symlink_to(precious / "root.pem")
    with pytest.raises(RepositoryError, match="lock publish"), store.lock("publish"):
        pass
    (incoming / "left").symlink_to(precious)
    (incoming / "folder" / "inner").mkdir(parents=True)
    (incoming / "folder" / "link").symlink_to(precious)
    for left in list(store.abandoned(now + LATER)):
        store.discard(left)
    assert [path.name for path in incoming.iterdir()] == ["publish.lock"]
    shutil.rmtree(incoming)
    incoming.symlink_to(precious)
    assert not list(store.abandoned(now + LATER))
    with pytest.raises(RepositoryError, match=r"\.incoming is a link"):
        store.put("b", b"x")
    with pytest.raises(RepositoryError, match=r"\.incoming is a link"), store.lock("publish"):
        pass
    assert [path.read_bytes() for path in precious.iterdir()] == [b"precious"]


def test_what_is_no_file_is_not_waited_for(store: LocalStore, tmp_path: Path) -> None:
    store.put("a/x", b"x")
    os.mkfifo(store.root / "a" / "pipe")
    (store.root / "a" / "zero").symlink_to("/dev/zero")
    (store.root / "a" / "loop").symlink_to("loop")
    for key in ("a/pipe", "a/zero"):
        for read in (
            lambda key=key: store.get(key),
            lambda key=key: store.read_range(key, 0, 4),
            lambda key=key: store.fetch(key, tmp_path / "copy"),
        ):
            with pytest.raises(RepositoryError, match="not a regular file"):
                read()
    assert [entry.key for entry in store.list("a/")] == ["a/pipe", "a/x", "a/zero"]
    with pytest.raises(OSError, match="not a regular file"):
        sha256_file(store.root / "a" / "pipe")
