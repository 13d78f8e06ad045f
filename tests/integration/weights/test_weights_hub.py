"""Weights from a hub: the real client against a hub on loopback."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_hub import FakeHub
from support.goldens import assert_golden
from support.hub_manifests import copy_open
from support.paths import ROOT

from builders.weights import identify
from builders.weights.mode import WeightsMode
from zoo.schema.manifest import DigestFrom, HubWeights, load_manifest
from zoo.util.digest import sha256_bytes
from zoo.util.errors import UnlockedError

DATA = b"not a state dict, but bytes with a hash " * 100
REPOSITORY = "timm/resnet50.a1_in1k"


@pytest.fixture
def served(hub: FakeHub, tmp_path: Path) -> FakeHub:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA)
    hub.add(REPOSITORY, "model.safetensors", path)
    return hub


def locked(hub: FakeHub, **changes: object) -> HubWeights:
    values = {
        "source": "hub",
        "repository": REPOSITORY,
        "revision": hub.revision(REPOSITORY),
        "file": "model.safetensors",
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "size": len(DATA),
    }
    return HubWeights.model_validate({**values, **changes})


def fetch(weights: HubWeights, **environment: str) -> subprocess.CompletedProcess[str]:
    """Fetches in a process of its own: huggingface_hub reads its environment at import."""
    code = (
        "import sys\n"
        "from builders.weights.hub import fetch\n"
        "from zoo.util.errors import ZooError\n"
        "from zoo.schema.manifest import HubWeights\n"
        "try:\n"
        "    print(fetch('resnet50', HubWeights.model_validate_json(sys.argv[1])))\n"
        "except ZooError as error:\n"
        "    print(error, file=sys.stderr); sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", code, weights.model_dump_json()]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture(params=["plain", "xet"])
def stored(served: FakeHub, request: pytest.FixtureRequest) -> FakeHub:
    """A hub that keeps its files in one storage or the other."""
    served.xet = request.param == "xet"
    return served


def cached(folder: Path) -> list[bytes]:
    """The content of all files in the caches of the hub's client."""
    return [path.read_bytes() for path in (folder / "hf").rglob("*") if path.is_file()]


def test_a_pinned_file_is_fetched_and_checked(stored: FakeHub) -> None:
    done = fetch(locked(stored))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == DATA
    from_xet = [asked for asked in stored.requests if "reconstructions" in asked]
    assert bool(from_xet) is stored.xet
    assert stored.downloads["model.safetensors"] == 1


def test_the_cache_serves_without_a_network(
    served: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch(locked(served)).returncode == 0
    served.stop()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = fetch(locked(served))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == DATA


@pytest.mark.parametrize("damaged", [DATA[:100], DATA[::-1]], ids=["truncated", "overwritten"])
def test_a_damaged_cached_file_is_downloaded_again(served: FakeHub, damaged: bytes) -> None:
    path = Path(fetch(locked(served)).stdout.strip())
    path.resolve().write_bytes(damaged)
    done = fetch(locked(served))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == DATA


def test_a_damaged_cached_file_is_not_used_without_a_network(
    served: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(fetch(locked(served)).stdout.strip())
    path.resolve().write_bytes(DATA[::-1])
    served.stop()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = fetch(locked(served))
    assert done.returncode == 5
    assert sha256_bytes(DATA[::-1]) in done.stdout
    assert "HF_HUB_OFFLINE" in done.stderr


def test_an_announced_hash_that_is_another_is_refused_before_the_download(
    stored: FakeHub, tmp_path: Path
) -> None:
    done = fetch(locked(stored, sha256="0" * 64))
    assert done.returncode == 5
    assert hashlib.sha256(DATA).hexdigest() in done.stderr
    assert "0" * 64 in done.stderr
    assert not stored.downloads
    assert not cached(tmp_path)


def test_other_bytes_than_the_announced_ones_are_refused_and_removed(
    stored: FakeHub, tmp_path: Path
) -> None:
    stored.swapped.add("model.safetensors")
    done = fetch(locked(stored))
    assert done.returncode == 5
    assert stored.downloads["model.safetensors"]
    assert not [data for data in cached(tmp_path) if len(data) == len(DATA)]
    if not stored.xet:
        assert_golden("weights/hub-other-bytes", done.stderr)


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_stated_size_that_is_wrong_is_not_the_hubs_fault(
    served: FakeHub, is_cached: bool
) -> None:
    if is_cached:
        fetch(locked(served))
    done = fetch(locked(served, size=len(DATA) + 1))
    assert done.returncode == 5
    assert_golden("weights/hub-stated-size", done.stderr)
    assert DATA in cached(Path(os.environ["HF_HOME"]).parent)  # the file is the right one


@pytest.mark.parametrize("origin", DigestFrom)
def test_what_to_do_depends_on_who_stated_the_hash(served: FakeHub, origin: DigestFrom) -> None:
    done = fetch(locked(served, sha256="0" * 64, digest_from=origin))
    assert done.returncode == 5
    assert_golden(f"weights/hub-other-hash-{origin}", done.stderr)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    served: FakeHub, tmp_path: Path
) -> None:
    """The hub's client writes 10 MiB at a time: what of the last part had come is lost."""
    data = DATA * 12_000
    (tmp_path / "large.safetensors").write_bytes(data)
    served.add(REPOSITORY, "model.safetensors", tmp_path / "large.safetensors")
    served.interrupt["model.safetensors"] = 2
    weights = locked(served, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    done = fetch(weights)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).read_bytes() == data
    part = 10 * 2**20
    first = len(data) // 2 // part * part
    assert served.parts == [
        f"bytes={first}-",
        f"bytes={first + (len(data) - first) // 2 // part * part}-",
    ]


def test_a_download_that_breaks_off_begins_again_without_ranges(served: FakeHub) -> None:
    served.interrupt["model.safetensors"], served.ranges = 1, False
    done = fetch(locked(served))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).read_bytes() == DATA
    assert served.downloads["model.safetensors"] == 2


def test_a_download_from_xet_that_breaks_off_goes_on(served: FakeHub) -> None:
    served.xet, served.interrupt["model.safetensors"] = True, 1
    done = fetch(locked(served))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).read_bytes() == DATA


def test_a_truncated_file_is_refused(served: FakeHub) -> None:
    served.truncate.add("model.safetensors")
    served.ranges = False
    done = fetch(locked(served))
    assert done.returncode == 5, done.stderr
    assert "WEIGHTS=seeded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "changes",
    [{"revision": "f" * 40}, {"file": "other.safetensors"}, {"repository": "timm/nothing"}],
    ids=["revision", "file", "repository"],
)
@pytest.mark.parametrize("hidden", [False, True], ids=["404", "401"])
def test_what_the_hub_does_not_have_is_said(
    served: FakeHub, changes: dict[str, str], hidden: bool
) -> None:
    served.hides_missing = hidden
    done = fetch(locked(served, **changes))
    assert done.returncode == 5
    status = "401" if hidden and "repository" in changes else "404"
    assert f"{status}: " in done.stderr
    assert "resnet50.toml" in done.stderr


def test_no_network_names_the_dry_run(served: FakeHub) -> None:
    served.stop()
    done = fetch(locked(served))
    assert done.returncode == 5
    assert "WEIGHTS=seeded" in done.stderr


def test_what_answers_may_be_no_hub(served: FakeHub) -> None:
    served.is_hub = False
    done = fetch(locked(served))
    assert done.returncode == 5
    assert "hub" in done.stderr
    assert "HF_ENDPOINT" in done.stderr
    mirror = served.endpoint.replace("http://", "http://me:secret@")
    done = fetch(locked(served), HF_ENDPOINT=mirror)
    assert done.returncode == 5
    assert "secret" not in done.stderr


@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_stranger", 403)])
def test_a_gated_model_names_the_command_that_helps(
    served: FakeHub, token: str, status: int
) -> None:
    served.gate(REPOSITORY, "hf_admitted")
    environment = {"HF_TOKEN": token} if token else {}
    done = fetch(locked(served), **environment)
    assert done.returncode == 5
    assert f"answers {status}" in done.stderr
    assert f"{served.endpoint}/{REPOSITORY}" in done.stderr
    assert "hf auth login" in done.stderr
    done = fetch(locked(served), HF_TOKEN="hf_admitted")
    assert done.returncode == 0, done.stderr


def test_a_private_repository_is_as_good_as_none(served: FakeHub) -> None:
    served.gate(REPOSITORY, "hf_owner", private=True)
    done = fetch(locked(served))
    assert done.returncode == 5
    assert "answers 401" in done.stderr
    assert "hf auth login" in done.stderr
    assert fetch(locked(served), HF_TOKEN="hf_owner").returncode == 0


def test_a_moved_repository_is_followed(stored: FakeHub) -> None:
    stored.moved["timm/of_old"] = REPOSITORY
    done = fetch(locked(stored, repository="timm/of_old"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == DATA


def test_a_mirror_may_be_written_with_a_slash(served: FakeHub) -> None:
    assert fetch(locked(served), HF_ENDPOINT=f"{served.endpoint}/").returncode == 0


def with_a_newer_file(hub: FakeHub, folder: Path) -> str:
    """Replaces the file in a commit of its own; returns the commit before."""
    before = hub.revision(REPOSITORY)
    hub.commit(REPOSITORY)
    newer = folder / "newer.safetensors"
    newer.write_bytes(DATA[::-1])
    hub.add(REPOSITORY, "model.safetensors", newer)
    return before


def test_without_a_revision_the_hash_decides(served: FakeHub, tmp_path: Path) -> None:
    newest = locked(served, revision="unlocked", size="unlocked")
    assert fetch(newest).returncode == 0  # the newest commit has it
    before = with_a_newer_file(served, tmp_path)
    shutil.rmtree(tmp_path / "hf")
    assert fetch(newest).returncode == 5  # and now no commit that anyone knows of
    absent = ("f" * 40, before)
    recorded = locked(served, revision="unlocked", recorded_revisions=absent)
    done = fetch(recorded)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == DATA
    served.stop()
    assert fetch(recorded, HF_HUB_OFFLINE="1").returncode == 0


def test_a_newer_file_in_the_cache_is_left_alone(served: FakeHub, tmp_path: Path) -> None:
    before = with_a_newer_file(served, tmp_path)
    other = hashlib.sha256(DATA[::-1]).hexdigest()
    newer = fetch(locked(served, revision="unlocked", sha256=other))
    assert newer.returncode == 0, newer.stderr
    done = fetch(locked(served, revision="unlocked", recorded_revisions=(before,)))
    assert done.returncode == 0, done.stderr
    assert Path(newer.stdout.strip()).read_bytes() == DATA[::-1]


def test_unlocked_weights_are_refused(tmp_path: Path) -> None:
    manifest = load_manifest(copy_open("resnet50", tmp_path))
    with pytest.raises(UnlockedError, match="make lock MODELS=resnet50"):
        identify(manifest, WeightsMode.MANIFEST)
