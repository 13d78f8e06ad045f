"""Weights from a hub: the real client against a hub on loopback."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_hub import FakeHub
from support.goldens import assert_golden
from support.paths import ROOT

from builders.weights import identify
from builders.weights.mode import WeightsMode
from zoo.schema.manifest import HubWeights, Manifest, load_manifest
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


def fetch(weights: HubWeights) -> subprocess.CompletedProcess[str]:
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
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_a_pinned_file_is_fetched_and_checked(served: FakeHub) -> None:
    done = fetch(locked(served))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == DATA


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
    assert "downloading it again" in done.stdout
    assert "HF_HUB_OFFLINE" in done.stderr


def test_a_wrong_hash_is_refused_and_removed(served: FakeHub, tmp_path: Path) -> None:
    done = fetch(locked(served, sha256="0" * 64))
    assert done.returncode == 5
    assert hashlib.sha256(DATA).hexdigest() in done.stderr
    assert "0" * 64 in done.stderr
    left = [path for path in (tmp_path / "hf").rglob("*") if path.is_file()]
    assert DATA not in [path.read_bytes() for path in left]


def test_changed_bytes_of_the_same_length_are_refused(served: FakeHub) -> None:
    served.corrupt.add("model.safetensors")
    done = fetch(locked(served))
    assert done.returncode == 5
    assert_golden("weights/hub-other-bytes", done.stderr)


def test_a_truncated_file_is_refused(served: FakeHub) -> None:
    served.truncate.add("model.safetensors")
    done = fetch(locked(served))
    assert done.returncode == 5, done.stderr
    assert "WEIGHTS=seeded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "changes",
    [{"revision": "f" * 40}, {"file": "other.safetensors"}, {"repository": "timm/nothing"}],
    ids=["revision", "file", "repository"],
)
def test_what_the_hub_does_not_have_is_a_404(served: FakeHub, changes: dict[str, str]) -> None:
    done = fetch(locked(served, **changes))
    assert done.returncode == 5
    assert "404" in done.stderr
    assert "zoo-farm lock resnet50" in done.stderr


def test_no_network_names_the_dry_run(served: FakeHub) -> None:
    served.stop()
    done = fetch(locked(served))
    assert done.returncode == 5
    assert "WEIGHTS=seeded" in done.stderr


def test_unlocked_weights_are_refused(manifests: dict[str, Manifest]) -> None:
    with pytest.raises(UnlockedError, match="zoo-farm lock resnet50"):
        identify(manifests["resnet50"], WeightsMode.MANIFEST)


def test_lock_writes_what_the_hub_says_and_nothing_else(
    served: FakeHub, manifest_dir: Path
) -> None:
    path = manifest_dir / "resnet50.toml"
    before = path.read_text()
    command = [sys.executable, "-m", "builders.cli", "--manifests", str(manifest_dir)]
    done = subprocess.run(
        [*command, "lock", "resnet50"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    weights = load_manifest(path).weights
    assert isinstance(weights, HubWeights)
    assert weights == locked(served)
    changed = [line for line in path.read_text().splitlines() if line not in before.splitlines()]
    assert [line.split(" = ")[0] for line in changed] == ["revision", "sha256", "size"]


def test_lock_of_an_unknown_repository_changes_nothing(hub: FakeHub, manifest_dir: Path) -> None:
    before = (manifest_dir / "resnet50.toml").read_text()
    command = [sys.executable, "-m", "builders.cli", "--manifests", str(manifest_dir)]
    done = subprocess.run(
        [*command, "lock", "resnet50"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 5
    assert "404" in done.stderr
    assert (manifest_dir / "resnet50.toml").read_text() == before


def lock(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "builders.cli", "--manifests", str(folder), "lock", "resnet50"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def with_card(hub: FakeHub, folder: Path, metadata: str) -> None:
    card = folder / "README.md"
    card.write_text(f"---\n{metadata}\n---\n# A model\n")
    hub.add(REPOSITORY, "README.md", card)


def test_a_licence_that_is_not_the_cards_is_refused_or_has_a_reason(
    served: FakeHub, manifest_dir: Path, tmp_path: Path
) -> None:
    with_card(served, tmp_path, "license: CC-BY-NC-4.0\ntags: [timm]")
    path = manifest_dir / "resnet50.toml"
    before = path.read_text()
    done = lock(manifest_dir)
    assert done.returncode == 3
    assert_golden("weights/licence-of-the-card", done.stderr)
    assert path.read_text() == before
    path.write_text(before + '\n[deviations]\nlicence = "granted to us in writing"\n')
    done = lock(manifest_dir)
    assert done.returncode == 0, done.stderr
    assert load_manifest(path).deviations == {"licence": "granted to us in writing"}


@pytest.mark.parametrize(
    "metadata",
    ["license: apache-2.0", "tags: [timm]", "license: other", "license: [mit]", "license: {a: [}"],
)
def test_a_card_that_agrees_or_states_nothing_is_taken(
    metadata: str, served: FakeHub, manifest_dir: Path, tmp_path: Path
) -> None:
    with_card(served, tmp_path, metadata)
    done = lock(manifest_dir)
    assert done.returncode == 0, done.stderr


def test_a_licence_of_its_own_name_is_compared(
    served: FakeHub, manifest_dir: Path, tmp_path: Path
) -> None:
    with_card(served, tmp_path, "license: other\nlicense_name: dinov3-license")
    done = lock(manifest_dir)
    assert done.returncode == 3
    assert "'dinov3-license'" in done.stderr
