"""``make bench``: what its numbers rest on, and each section once, small."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.__main__ import SECTIONS, main
from benchmarks.bench.child import Child
from benchmarks.bench.ground import Ground
from benchmarks.bench.peers import FOLDER, Peers
from benchmarks.bench.plans import write_tree
from benchmarks.bench.redirecting_hub import RedirectingHub
from benchmarks.bench.results import Taken
from benchmarks.bench.turns import command, in_turns
from zoo.util.errors import RunError

MIB = 2**20


def test_a_command_is_measured_without_the_memory_of_what_started_it() -> None:
    held = bytearray(400 * MIB)  # of this process; Linux would count it for a child
    code = "import time; data = bytearray(60 << 20); time.sleep(0.2)"
    taken = command([sys.executable, "-S", "-c", code])
    assert taken.seconds > 0.2
    assert taken.mib is not None
    assert 60 < taken.mib < 200
    assert len(held)


def test_a_command_that_fails_is_an_error_with_its_output() -> None:
    with pytest.raises(RunError, match="what it said"):
        command([sys.executable, "-c", "print('what it said'); raise SystemExit(3)"])
    command([sys.executable, "-c", "raise SystemExit(3)"], status=3)


def test_a_contestant_is_measured_in_its_own_process() -> None:
    code = (
        "from benchmarks.bench.serve import serve; import time; "
        "serve('peer 1.0', lambda: (time.sleep(0.2), bytearray(50 << 20)), per=2)"
    )
    with Child([sys.executable, "-c", code]) as child:
        taken = child.run()
        assert child.name == "peer 1.0"
    assert taken.seconds > 0.1
    assert taken.mib is not None
    assert taken.mib > 50


def test_a_contestant_that_ends_is_an_error() -> None:
    with pytest.raises(RunError, match="status 3"), Child([sys.executable, "-c", "exit(3)"]):
        pass


def test_who_begins_changes_from_round_to_round() -> None:
    order: list[str] = []

    def way(name: str) -> Taken:
        order.append(name)
        return Taken(seconds=1.0)

    runs = in_turns({name: partial(way, name) for name in "abc"}, 3, warm=False)
    assert order == [*"abc", *"bca", *"cab"]
    assert {name: len(taken) for name, taken in runs.items()} == {"a": 3, "b": 3, "c": 3}


def test_make_has_nothing_to_do_until_a_manifest_changes(tmp_path: Path) -> None:
    write_tree(tmp_path, models=3, targets=20)
    make = partial(command, ["make", "-q"], folder=tmp_path)
    make()
    time.sleep(0.05)
    (tmp_path / "manifests" / "1").touch()
    make(status=1)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A file and the URL at which a server on loopback has it."""
    path = tmp_path / "served" / "engine"
    path.parent.mkdir()
    path.write_bytes(b"engine" * 1000)
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield path, f"http://127.0.0.1:{server.server_address[1]}/engine"
    server.shutdown()
    server.server_close()


def test_the_hub_sends_its_client_to_another_server(
    files: tuple[Path, str], tmp_path: Path
) -> None:
    path, url = files
    code = (
        "import sys; from huggingface_hub import hf_hub_download; "
        "print(hf_hub_download('a/b', 'engine.safetensors', cache_dir=sys.argv[1]))"
    )
    with RedirectingHub(url, path) as hub:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "cache")], capture_output=True, text=True,
            env={**hub.environment(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == path.read_bytes()


def test_an_unknown_section_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "pul", "--results", str(tmp_path)])
    assert main() != 0
    assert "no section 'pul'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.full  # makes an environment
def test_peers_that_can_not_be_installed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    peers = Peers(tmp_path / "peers")
    assert peers.command("snakemake") is None
    assert "not installed" in peers.lacks("snakemake")
    assert peers.missing


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_measures_something(name: str, tmp_path: Path) -> None:
    section = SECTIONS[name](Ground(tmp_path, quick=True, peers=Peers(FOLDER)))
    assert section.name == name
    assert section.ratios or section.growths or section.skipped
    assert all(ratio.ratio.value > 0 for ratio in section.ratios)
