"""State that is made once is made by one process, and a rotation belongs to its repository."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.goldens import raises_golden
from support.signed_repository import Signed, no_passphrase

from benchmarks.races import first_runs
from builders.jobs.scratch import IDLE, is_left, scratch_folder
from builders.publish import tuf_files
from builders.publish.keys import (
    ROLES,
    KeyRing,
    KeysExistError,
    Role,
    make_keys,
    new_builder,
    new_key,
)
from builders.publish.registered import read_file
from builders.publish.tuf_metadata import SignedMetadata
from zoo.stores import LocalStore
from zoo.util.errors import TrustError

FORK = multiprocessing.get_context("fork")


def test_first_runs_at_once_make_one_set_of_keys_and_sign_with_it(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert first_runs(folder, 4) == []
        names = {path.name for path in (folder / "repository.keys").iterdir()}
        assert names == {
            "builder.pem", "builders.json", "keys.json", "lock", "publisher.pem", "root.json",
            "root.pem", "seen.json", "targets.pem",
        }  # fmt: skip


def test_keys_are_made_once_on_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
    (tmp_path / "keys").mkdir()
    answers = FORK.Queue()
    start = FORK.Barrier(6)

    def make() -> None:
        start.wait()
        try:
            make_keys(tmp_path / "keys", None, ask=no_passphrase)
            answers.put("made")
        except KeysExistError:
            answers.put("exist")

    processes = [FORK.Process(target=make) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [answers.get(timeout=10) for _ in processes].count("made") == 1
    ring = KeyRing(tmp_path / "keys", no_passphrase)
    signer = ring.signer(ring.entry("publisher"))
    signer.public_key.verify_signature(signer.sign(b"x"), b"x")
    (first,) = read_file(ring.builders_file)
    assert first == new_builder(ring.builder_file, "first", None)


def rotate(signed: Signed) -> None:
    metadata = SignedMetadata(signed.store, signed.ring)
    metadata.load()
    metadata.rotate("publisher", new_key(signed.ring.folder, "publisher", None))


def killed_rotation(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a process right after it has written the journal of a rotation."""

    def die(files: tuf_files.MetadataFiles) -> None:
        if (signed.ring.folder / "rotation.json").is_file():
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(tuf_files.MetadataFiles, "complete", die)
        process = FORK.Process(target=rotate, args=(signed,))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL


def test_an_interrupted_rotation_is_completed_in_its_repository_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = Signed(tmp_path / "mine"), Signed(tmp_path / "other")
    mine.release()
    other.release("m", b"other engine")
    before = {entry.key: other.store.get(entry.key) for entry in other.store.list("")}
    killed_rotation(mine, monkeypatch)
    with raises_golden(TrustError, "publish/rotation-of-another"):
        SignedMetadata(other.store, mine.ring).load()
    assert {entry.key: other.store.get(entry.key) for entry in other.store.list("")} == before
    mine.ring = KeyRing(mine.ring.folder, no_passphrase)
    mine.publish(refresh=True)  # completes it
    assert not (mine.ring.folder / "rotation.json").exists()
    assert mine.pulled(mine.client()) == b"engine"
    assert other.pulled(other.client()) == b"other engine"


def test_a_journal_of_version_0_1_is_bound_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = Signed(tmp_path / "mine"), Signed(tmp_path / "other")
    mine.release()
    other.release()
    killed_rotation(mine, monkeypatch)
    path = mine.ring.folder / "rotation.json"
    journal = json.loads(path.read_bytes())
    del journal["store"], journal["sha256"]
    path.write_text(json.dumps(journal))
    with pytest.raises(TrustError, match=re.escape(str(other.store.url))):
        SignedMetadata(other.store, mine.ring).load()
    mine.publish(refresh=True)
    assert mine.pulled(mine.client()) == b"engine"


def test_a_rotation_is_not_completed_over_what_was_published_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = Signed(tmp_path)
    signed.release()
    killed_rotation(signed, monkeypatch)
    journal = signed.ring.folder / "rotation.json"
    kept = journal.read_bytes()
    journal.unlink()  # another copy of the keys has none
    signed.release(content=b"newer")
    journal.write_bytes(kept)
    with raises_golden(TrustError, "publish/rotation-too-late"):
        signed.publish(refresh=True)
    assert signed.pulled(signed.client()) == b"newer"


def test_keys_of_one_repository_start_no_other(tmp_path: Path) -> None:
    mine, other = Signed(tmp_path / "mine"), Signed(tmp_path / "other")
    mine.release()
    root = mine.ring.root_file.read_bytes()
    other.ring = mine.ring
    with raises_golden(TrustError, "publish/keys-of-another"):
        other.publish()
    assert mine.ring.root_file.read_bytes() == root


class WatchedStore(LocalStore):
    """A local store that calls a function after each object that is written."""

    after: Callable[[], None] = staticmethod(lambda: None)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        written = super().put(key, data, if_absent=if_absent)
        self.after()
        return written


@pytest.mark.parametrize("role", ROLES)
def test_readers_can_read_after_each_file_of_a_rotation(tmp_path: Path, role: Role) -> None:
    signed = Signed(tmp_path)
    signed.release()
    first, pulled = signed.ring.root_file.read_bytes(), []
    store = WatchedStore(tmp_path / "store")
    metadata = SignedMetadata(store, signed.ring)
    metadata.load()
    store.after = lambda: pulled.append(
        signed.pulled(signed.client(f"reader {len(pulled)}", root=first))
    )
    metadata.rotate(role, new_key(signed.ring.folder, role, None))
    assert len(pulled) >= 3
    assert set(pulled) == {b"engine"}


def test_scratch_folders_of_killed_runs_alone_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed, host = Signed(tmp_path), platform.node()
    incoming = signed.folder / "store/.incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old = 120.0

    def folder(name: str, age: float = old) -> Path:
        made = incoming / name
        made.mkdir()
        then = made.stat().st_mtime - age
        os.utime(made, (then, then))
        return made

    left = folder(f"job-{host}-{ended.pid}-abcdefgh")
    others = [
        folder(f"job-{host}-blade2-{ended.pid}-abcdefgh"),  # its name begins like this one's
        folder(f"job-elsewhere-{ended.pid}-abcdefgh"),
        folder(f"job-{host}-{os.getppid()}-abcdefgh"),
        folder(f"job-{host}-{ended.pid}-ijklmnop", age=0),
    ]
    forgotten = folder("job-elsewhere-1-abcdefgh", age=IDLE + 1)
    with scratch_folder(signed.repository) as mine:
        assert mine.is_dir()
        assert not left.exists()
        assert not forgotten.exists()
        assert all(other.is_dir() for other in others)
        os.utime(mine, (1, 1))
        assert not is_left(others[0])
    assert not mine.exists()
