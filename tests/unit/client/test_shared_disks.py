"""Caches on read-only, shared and odd disks: what is there is used, downloads are whole."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.signed_repository import Signed

from zoo.client import partials, roots
from zoo.client.partials import own_partial
from zoo.util.errors import RepositoryError
from zoo.util.files import whole
from zoo.util.locks import turn


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.release()
    return made


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that, once it exists, may not be written: as on a disk that is mounted read-only."""
    home = tmp_path / "home"
    opened, access, mkdir, rename = os.open, os.access, os.mkdir, os.rename
    stream = io.open

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and home in Path(os.fspath(path)).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open_(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(path)
        return opened(path, flags, *mode, **more)

    def mkdir_(path: Any, *mode: Any, **more: Any) -> None:
        if not os.path.exists(path):
            refuse(path)
        mkdir(path, *mode, **more)

    def rename_(path: Any, *more: Any, **named: Any) -> None:
        refuse(path)
        rename(path, *more, **named)

    def stream_(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(path)
        return stream(path, mode, *more, **named)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(io, "open", stream_)
    monkeypatch.setattr(os, "mkdir", mkdir_)
    monkeypatch.setattr(os, "rename", rename_)
    monkeypatch.setattr(
        os, "access", lambda path, mode: home not in Path(path, "x").parents and access(path, mode)
    )
    return home


def test_a_read_only_home_with_everything_in_it_serves(
    signed: Signed, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert signed.pulled(signed.client("home")) == b"engine"
    before = snapshot(tmp_path / "home")
    request.getfixturevalue("read_only")
    client = signed.client("home")
    assert [row.model for row in client.index().models] == ["m"]
    assert signed.pulled(client) == b"engine"
    assert snapshot(tmp_path / "home") == before


def test_a_read_only_home_without_the_engine_is_a_sentence(
    signed: Signed, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    signed.pulled(signed.client("home"))
    for path in (tmp_path / "home" / "cache" / "engines").iterdir():
        path.unlink()
    request.getfixturevalue("read_only")
    with pytest.raises(RepositoryError) as raised:
        signed.pulled(signed.client("home"))
    assert raised.value.exit_code == 10
    assert os.strerror(errno.EROFS) in raised.value.message
    assert raised.value.hint


@pytest.fixture
def kept() -> Iterator[ExitStack]:
    """Open files, whose numbers no other file can get, also once they are deleted."""
    with ExitStack() as files:
        yield files


def make_another_users(home: Path, kept: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the files in a home another user's, in folders that the group may write."""
    theirs = [path for path in home.rglob("*") if path.is_file()]
    opened, access, chmod, utime, stream = os.open, os.access, os.chmod, os.utime, io.open
    inodes = {os.fstat(kept.enter_context(path.open("rb")).fileno()).st_ino for path in theirs}

    def is_theirs(path: Any) -> bool:
        try:
            return os.stat(path).st_ino in inodes
        except OSError:
            return False

    def open_(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and is_theirs(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *mode, **more)

    def stream_(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if set(mode) & set("wax+") and not isinstance(path, int) and is_theirs(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stream(path, mode, *more, **named)

    def owners_only(change: Any) -> Any:
        def changed(path: Any, *values: Any, **named: Any) -> None:
            if is_theirs(path):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
            change(path, *values, **named)

        return changed

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(io, "open", stream_)
    monkeypatch.setattr(os, "chmod", owners_only(chmod))
    monkeypatch.setattr(os, "utime", owners_only(utime))
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not (mode & os.W_OK and is_theirs(path)) and access(path, mode),
    )


def test_a_second_user_of_a_group_writable_home_works(
    signed: Signed, tmp_path: Path, kept: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signed.pulled(signed.client("home")) == b"engine"
    signed.release("m2", b"another engine")
    make_another_users(tmp_path / "home", kept, monkeypatch)
    second = signed.client("home")
    assert signed.pulled(second) == b"engine"
    assert signed.pulled(second, "m2") == b"another engine"
    assert [row.model for row in signed.client("home").index().models] == ["m", "m2"]
    assert not list(tmp_path.rglob("*.part"))


def test_another_users_interrupted_download_is_not_gone_on_from(
    signed: Signed, tmp_path: Path, kept: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = signed.client("home")
    fetch, left = first.repository.blobs.fetch, []

    def interrupted(blob: Any, path: Path, **more: Any) -> None:
        more["partial"].write_bytes(b"eng")
        left.append(more["partial"])
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(first.repository.blobs, "fetch", interrupted)
    with pytest.raises(Exception, match="reset"):
        signed.pulled(first)
    monkeypatch.setattr(first.repository.blobs, "fetch", fetch)
    (partial,) = left
    assert partial.read_bytes() == b"eng"
    make_another_users(tmp_path / "home", kept, monkeypatch)
    assert signed.pulled(signed.client("home")) == b"engine"
    assert partial.read_bytes() == b"eng"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, None])
def test_without_locks_downloads_are_whole(
    code: int | None, signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, operation: int) -> None:
        if code is not None:  # Lustre grants every lock
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    first, second = signed.client("home"), signed.client("home")
    fetch = second.repository.blobs.fetch
    inside: list[bytes] = []

    def meanwhile(blob: Any, path: Path, **more: Any) -> None:
        """Another process downloads the same engine while this one is about to."""
        more["partial"].write_bytes(b"eng")
        inside.append(signed.pulled(first))
        assert more["partial"].read_bytes() == b"eng"
        fetch(blob, path, **more)

    monkeypatch.setattr(second.repository.blobs, "fetch", meanwhile)
    assert signed.pulled(second) == b"engine"
    assert inside == [b"engine"]
    assert not list(signed.folder.rglob("*.part"))


def test_root_json_that_another_process_has_just_linked_is_no_error(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, times = os.symlink, []

    def raced(*arguments: Any, **more: Any) -> None:
        times.append(arguments)
        if len(times) < 4:
            raise FileExistsError(errno.EEXIST, "another process was faster")
        link(*arguments, **more)

    monkeypatch.setattr(os, "symlink", raced)
    assert signed.pulled(signed.client()) == b"engine"


def test_another_users_lock_is_taken_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    opened = os.open

    def theirs(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", theirs)
    with turn(tmp_path / "lock"):
        file = opened(tmp_path / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(file)
    with turn(tmp_path / "none"):
        pass


def test_a_download_takes_over_what_a_dead_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine"
    dead, kill = 4_000_001, os.kill

    def look(pid: int, signal: int) -> None:
        if pid == dead:
            raise ProcessLookupError
        kill(pid, signal)

    monkeypatch.setattr(os, "kill", look)
    left = tmp_path / f"engine.{partials._HOST}-{dead}-00000000.part"
    left.write_bytes(b"half")
    with own_partial(path) as own:
        assert own.read_bytes() == b"half"
        assert not left.exists()
        with own_partial(path) as second:  # the first is in use
            assert second != own
            assert not second.exists()
    with own_partial(path) as own:  # this process gave it up
        assert own.read_bytes() == b"half"
        own.unlink()
    living = tmp_path / f"engine.{partials._HOST}-{os.getppid()}-00000000.part"
    living.write_bytes(b"half")
    other = tmp_path / "engine.elsewhere-1-00000000.part"
    other.write_bytes(b"much more")
    with own_partial(path) as own:
        assert not own.exists()
    os.utime(other, (0, 0))
    with own_partial(path) as own:
        assert own.read_bytes() == b"much more"
    assert living.exists()


def test_two_writers_of_a_file_leave_it_whole(tmp_path: Path) -> None:
    with whole(tmp_path / "a") as first:
        first.write_bytes(b"first")
        with whole(tmp_path / "a") as second:
            second.write_bytes(b"second")
        assert first.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_root_is_trusted_where_it_can_not_be_remembered(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(roots, "write_whole", refuse)
    root = tmp_path / "root.json"
    root.write_bytes(signed.store.get("metadata/1.root.json"))
    home = roots.TrustHome(roots=tmp_path / "roots", verified=tmp_path / "verified")
    assert roots.trusted_root(signed.store, home, str(root)) == root.read_bytes()
    assert home.root(signed.store.url) is None


@pytest.mark.parametrize("how", ["symbolic", "hard"])
def test_a_link_is_never_written_through(how: str, tmp_path: Path) -> None:
    path, other = tmp_path / "engine", tmp_path / "precious"
    other.write_text("precious")
    left = path.with_name(f"engine.{partials._HOST}-4194305-abcdef01.part")  # of no process
    left.symlink_to(other) if how == "symbolic" else left.hardlink_to(other)
    with own_partial(path) as own:
        assert not own.exists()
        own.write_text("engine")
    assert other.read_text() == "precious"
