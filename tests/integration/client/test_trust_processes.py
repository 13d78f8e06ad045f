"""Trust across processes and on the command line."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.commands import ZooFarm
from support.paths import ROOT
from support.signed_repository import LABEL, Signed, run_nothing

from builders.publish.keys import KeyRing
from builders.publish.publisher import Publisher
from builders.run.reverify import Reverifier
from zoo.client.mirror import Filter, mirror
from zoo.client.trust_folders import TrustFolders
from zoo.stores import LocalStore
from zoo.util.clock import utc_now
from zoo.util.digest import sha256_bytes
from zoo.util.errors import TrustError, UsageError, VerificationError, ZooError


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.release()
    return made


def test_an_engine_is_withdrawn_once_and_with_a_reason(
    signed: Signed, capsys: pytest.CaptureFixture[str], zoo_farm: ZooFarm
) -> None:
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    command = ["withdraw", "m", LABEL, *place, "--reason"]
    assert zoo_farm("publish", *place, "--refresh") == 0  # who signs it trusts it
    assert zoo_farm(*command, " ") == UsageError.exit_code
    assert zoo_farm(*command, "row 3 is wrong") == 0
    assert zoo_farm(*command, "again") == 0
    assert "row 3 is wrong" in capsys.readouterr().out
    assert zoo_farm("gc", "--store", signed.store.url, "--grace", "-1") == UsageError.exit_code


def test_an_engine_is_withdrawn_in_a_repository_that_was_restored_from_a_mirror(
    signed: Signed, zoo_farm: ZooFarm
) -> None:
    signed.release("other", b"other engine")
    mirror(signed.client(), LocalStore(signed.folder / "mirror"), Filter())
    shutil.rmtree(signed.folder / "store")
    shutil.copytree(signed.folder / "mirror", signed.folder / "store")
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    assert zoo_farm("publish", *place, "--refresh") == 0
    assert zoo_farm("withdraw", "m", LABEL, *place, "--reason", "row 3 is wrong") == 0
    (engine,) = signed.client().model("m").engines
    assert engine.status == "withdrawn"
    assert signed.pulled(signed.client(), "other") == b"other engine"


def test_an_engine_that_was_superseded_is_withdrawn_by_its_digest(
    signed: Signed, zoo_farm: ZooFarm
) -> None:
    old = signed.repository.records("m")[0].engine.sha256
    signed.release(content=b"newer")
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    assert zoo_farm("publish", *place, "--refresh") == 0
    assert zoo_farm("withdraw", "m", old[:7], *place, "--reason", "r") == UsageError.exit_code
    assert zoo_farm("withdraw", "m", old[:8], *place, "--reason", "it leaks") == 0
    engines = {one.engine.sha256: one for one in signed.client().model("m").engines}
    assert (engines.pop(old).status, [one.status for one in engines.values()]) == (
        "withdrawn", ["verified"],
    )  # fmt: skip


def test_a_gpu_engine_is_reinstated_after_a_verification_elsewhere(
    signed: Signed,
    capsys: pytest.CaptureFixture[str],
    zoo_farm: ZooFarm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Reverifier, "why_not", lambda self, entry: "it requires a GPU")
    # It stands for an engine of a GPU: the publisher can't run it either.
    monkeypatch.setitem(Publisher.__init__.__kwdefaults__, "rerun", run_nothing)
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    engine = signed.repository.records("m")[0].engine
    assert zoo_farm("publish", *place, "--refresh") == 0
    command = ["reinstate", "m", LABEL, *place, "--reason"]
    assert zoo_farm(*command, "it is good") == UsageError.exit_code  # it is not withdrawn
    assert zoo_farm("withdraw", "m", LABEL, *place, "--reason", "row 3 is wrong") == 0
    capsys.readouterr()
    assert zoo_farm(*command, " ") == UsageError.exit_code
    assert zoo_farm(*command, "it is good") == VerificationError.exit_code
    assert "it requires a GPU" in capsys.readouterr().err
    assert [entry.status for entry in signed.client().model("m").engines] == ["withdrawn"]
    signed.attest(engine, time="2020-01-01T00:00:00.000000Z")  # before the withdrawal
    assert zoo_farm(*command, "it is good") == VerificationError.exit_code
    signed.attest(engine, time=utc_now(), kind="verified")
    assert zoo_farm(*command, "it is good") == 0
    assert [entry.status for entry in signed.client("again").model("m").engines] == ["verified"]


def pull_in_process(folder: Path, out: Any) -> None:
    sys.path.insert(0, str(ROOT))
    made = object.__new__(Signed)
    made.folder, made.store = folder, LocalStore(folder / "store")
    made.ring = KeyRing(folder / "keys", ask=lambda what: "")
    try:
        out.put(made.pulled(made.client("shared")))
    except ZooError as error:
        out.put(str(error))


def test_ten_clients_share_a_cache(tmp_path: Path) -> None:
    signed = Signed(tmp_path)
    engine = bytes(range(256)) * 40_000
    signed.release(content=engine)
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    clients = [context.Process(target=pull_in_process, args=(tmp_path, out)) for _ in range(10)]
    for client in clients:
        client.start()
    found = [out.get(timeout=60) for _ in clients]
    for client in clients:
        client.join()
    assert all(one == engine for one in found), [one for one in found if isinstance(one, str)]
    assert [path.name for path in (tmp_path / "shared/cache/engines").iterdir()] == [
        sha256_bytes(engine)
    ]


def test_the_command_line_says_what_to_do(signed: Signed, tmp_path: Path) -> None:
    def zoo(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "zoo.cli", *arguments], capture_output=True, text=True,
            cwd=tmp_path, check=False,
            env={"PYTHONPATH": str(ROOT), "ZOO_HOME": str(tmp_path / "h"), "PATH": "/usr/bin:/bin",
                 "ZOO_STORE": str(signed.folder / "store")},
        )  # fmt: skip

    refused = zoo("list")
    assert refused.returncode == TrustError.exit_code
    assert "--trust " in refused.stderr
    assert "m " in zoo("list", "--trust", str(signed.ring.root_file)).stdout
    keyid = signed.ring.entry("publisher").keyid
    assert f"signed by: key {keyid[:16]}, valid until 20" in zoo("show", "m").stdout
    assert zoo("list").returncode == 0
    assert "engines/" in zoo("pull", "m", "--target", "cpu-ort1.32-fp32").stdout


def started(shared: Path) -> TrustFolders:
    folders = TrustFolders(shared)
    folders.start()
    folders.metadata.mkdir(parents=True, exist_ok=True)
    return folders


def test_folders_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    child = os.fork()
    if child == 0:  # pragma: no cover - killed
        held = [started(tmp_path / "shared")]
        os.kill(os.getpid(), signal.SIGKILL)
        held.clear()
    os.waitpid(child, 0)
    [left] = (tmp_path / "own").iterdir()
    living = [started(tmp_path / "shared")]
    mine = living[0].metadata.parent
    assert left.exists()  # it may have been made just now, and not be locked yet
    for folder in (left, mine):
        os.utime(folder, (0, 0))
    living.append(started(tmp_path / "shared"))
    assert not left.exists()
    assert mine.exists()
    assert living[1].metadata.exists()
