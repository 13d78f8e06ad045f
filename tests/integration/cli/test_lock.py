"""``zoo-farm lock``: the real client against a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_hub import FakeHub
from support.goldens import assert_golden
from support.hub_manifests import copy_open, pin
from support.paths import ROOT

from builders.weights.locks import Pin, lock_path, read_locks
from zoo.schema.manifest import DigestFrom, load_manifest

RESNET, VGG = "timm/resnet50.a1_in1k", "timm/vgg16_bn.tv_in1k"
NAMES = {"resnet50": RESNET, "vgg16_bn": VGG}
DATA = {RESNET: b"residual " * 100, VGG: b"deep " * 100}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Manifests of two models whose weights are open."""
    for name in NAMES:
        copy_open(name, tmp_path / "manifests")
    return tmp_path / "manifests"


@pytest.fixture
def served(hub: FakeHub, tmp_path: Path) -> FakeHub:
    for repository, data in DATA.items():
        put(hub, repository, data, tmp_path)
    return hub


def put(hub: FakeHub, repository: str, data: bytes, folder: Path) -> None:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
    path.write_bytes(data)
    hub.add(repository, "model.safetensors", path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "builders.cli", "--manifests", str(folder), "lock", *arguments]


def lock(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def pins(folder: Path) -> dict[str, Pin]:
    return read_locks(folder).models


def expected(hub: FakeHub, repository: str, **changes: object) -> Pin:
    stated = {
        "repository": repository,
        "file": "model.safetensors",
        "revision": hub.revision(repository),
        "sha256": sha256(DATA[repository]),
        "size": len(DATA[repository]),
        "digest_from": DigestFrom.HUB,
        "hub": hub.endpoint,
    }
    return Pin.model_validate({**stated, **changes})


def test_a_fresh_lock_states_what_the_hub_states(served: FakeHub, folder: Path) -> None:
    before = {path.name: path.read_text() for path in folder.glob("*.toml")}
    done = lock(folder)
    assert done.returncode == 0, done.stderr
    assert pins(folder) == {name: expected(served, NAMES[name]) for name in NAMES}
    assert before == {path.name: path.read_text() for path in folder.glob("*.toml")}
    assert str(lock_path(folder)) in done.stdout
    assert sha256(DATA[VGG]) in done.stdout
    assert not served.downloads  # the hub states it; nothing is downloaded


def test_what_is_locked_stays(served: FakeHub, folder: Path) -> None:
    lock(folder)
    before = lock_path(folder).read_bytes()
    done = lock(folder)
    assert done.stdout == "resnet50: unchanged\nvgg16_bn: unchanged\n"
    assert lock_path(folder).read_bytes() == before


def test_a_newer_file_is_told_and_taken_with_upgrade_alone(
    served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    lock(folder)
    before = pins(folder)
    newer = served.commit(RESNET)
    put(served, RESNET, b"better", tmp_path)
    served.commit(VGG)  # only its card changed
    done = lock(folder)
    assert done.returncode == 0, done.stderr
    assert pins(folder) == before
    assert sha256(b"better") in done.stdout
    assert "UPGRADE=resnet50" in done.stdout
    assert "vgg16_bn: unchanged\n" in done.stdout
    done = lock(folder, "--upgrade", "resnet50")
    assert done.returncode == 0, done.stderr
    assert before["resnet50"].sha256 in done.stdout
    assert pins(folder)["resnet50"] == before["resnet50"].model_copy(
        update={"revision": newer, "sha256": sha256(b"better"), "size": 6}
    )
    assert pins(folder)["vgg16_bn"] == before["vgg16_bn"]


def test_a_file_that_changed_in_its_commit_is_an_error(
    served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    lock(folder)
    before = lock_path(folder).read_bytes()
    put(served, RESNET, b"another", tmp_path)
    done = lock(folder)
    assert done.returncode == 5
    assert sha256(b"another") in done.stderr
    assert sha256(DATA[RESNET]) in done.stderr
    assert_golden("weights/lock-other-hash", done.stderr)
    assert lock_path(folder).read_bytes() == before


def test_a_model_that_is_not_there_does_not_stop_the_others(served: FakeHub, folder: Path) -> None:
    copy_open("resnet101", folder)
    copy_open("densenet121", folder)
    done = lock(folder)
    assert done.returncode == 5
    assert set(pins(folder)) == set(NAMES)
    for name in ("densenet121", "resnet101"):
        assert f"error: {name}: " in done.stderr
    assert done.stderr.count("answers 404") == 2


def test_a_bad_manifest_does_not_stop_the_others(served: FakeHub, folder: Path) -> None:
    (folder / "broken.toml").write_text("id = 7\n")
    done = lock(folder)
    assert done.returncode == 3
    assert "broken.toml" in done.stderr
    assert set(pins(folder)) == set(NAMES)


def test_without_a_hub_nothing_is_locked(served: FakeHub, folder: Path) -> None:
    served.stop()
    done = lock(folder)
    assert done.returncode == 5
    assert "HF_ENDPOINT" in done.stderr
    assert not lock_path(folder).exists()


def test_locked_only_checks(served: FakeHub, folder: Path) -> None:
    done = lock(folder, "--locked")
    assert done.returncode == 4
    assert_golden("weights/not-locked", done.stderr)
    lock(folder, "resnet50")
    served.stop()
    done = lock(folder, "--locked")
    assert done.returncode == 4
    assert ": vgg16_bn\n" in done.stderr
    done = lock(folder, "--locked", "--models", "resnet50")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the weights of 1 model are locked\n"


def test_a_gated_model_names_the_command_that_helps(served: FakeHub, folder: Path) -> None:
    served.gate(RESNET, "hf_admitted")
    done = lock(folder)
    assert done.returncode == 5
    assert "hf auth login" in done.stderr
    assert f"{served.endpoint}/{RESNET}" in done.stderr
    assert set(pins(folder)) == {"vgg16_bn"}
    done = lock(folder, HF_TOKEN="hf_stranger")
    assert "answers 403" in done.stderr
    done = lock(folder, HF_TOKEN="hf_admitted")
    assert done.returncode == 0, done.stderr
    assert pins(folder)["resnet50"] == expected(served, RESNET)


def test_a_moved_repository_is_followed_and_written_down(served: FakeHub, folder: Path) -> None:
    now = "pytorch/resnet50.a1_in1k"
    served.repositories[now] = served.repositories.pop(RESNET)
    served.moved[RESNET] = now
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
    assert now in done.stdout
    assert pins(folder)["resnet50"] == expected(
        served, RESNET, revision=served.revision(now), moved_to=now
    )
    assert lock(folder, "resnet50").stdout == "resnet50: unchanged\n"


def test_what_answers_may_be_no_hub(served: FakeHub, folder: Path) -> None:
    served.is_hub = False
    done = lock(folder)
    assert done.returncode == 5
    assert "hub" in done.stderr
    assert not lock_path(folder).exists()


def test_a_mirrors_password_is_not_written_down(served: FakeHub, folder: Path) -> None:
    with_password = served.endpoint.replace("http://", "http://me:secret@")
    done = lock(folder, HF_ENDPOINT=with_password)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + lock_path(folder).read_text()
    assert pins(folder)["resnet50"].hub == served.endpoint
    served.gate(RESNET, "hf_admitted")
    for is_hub in (False, True):
        served.is_hub = is_hub
        done = lock(folder, HF_ENDPOINT=with_password)
        assert done.returncode == 5
        assert "secret" not in done.stdout + done.stderr


def test_two_at_once_lose_nothing(served: FakeHub, folder: Path) -> None:
    running = [
        subprocess.Popen(command(folder, name), cwd=ROOT, stdout=subprocess.PIPE) for name in NAMES
    ]
    assert [one.communicate(timeout=120) and one.returncode for one in running] == [0, 0]
    assert set(pins(folder)) == set(NAMES)


def test_a_stated_hash_is_kept_and_may_be_confirmed(served: FakeHub, folder: Path) -> None:
    pin(folder / "resnet50.toml", sha256(DATA[RESNET]), digest_from="one-public-file")
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
    origin = DigestFrom.PUBLIC_FILE
    assert pins(folder)["resnet50"] == expected(served, RESNET, digest_from=origin)


def test_a_stated_hash_that_the_hub_has_in_an_older_commit(
    served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    before = served.revision(RESNET)
    served.commit(RESNET)
    put(served, RESNET, b"better", tmp_path)
    recorded = ["f" * 40, before]
    pin(folder / "resnet50.toml", sha256(DATA[RESNET]), recorded_revisions=recorded)
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
    assert pins(folder)["resnet50"] == expected(served, RESNET, revision=before)


@pytest.mark.parametrize("origin", [DigestFrom.PUBLIC_FILE, DigestFrom.PUBLIC_FILES])
def test_a_stated_hash_that_the_hub_has_not_is_refused(
    served: FakeHub, folder: Path, origin: DigestFrom
) -> None:
    pin(folder / "resnet50.toml", "0" * 64, digest_from=str(origin))
    for arguments in ([], ["--upgrade", "resnet50"]):
        done = lock(folder, *arguments)
        assert done.returncode == 5
        assert "0" * 64 in done.stderr
        assert sha256(DATA[RESNET]) in done.stderr
        assert_golden(f"weights/lock-stated-{origin}", done.stderr)
        assert set(pins(folder)) == {"vgg16_bn"}


def test_a_lock_that_contradicts_its_manifest_stops_that_model(
    served: FakeHub, folder: Path
) -> None:
    lock(folder)
    pin(folder / "resnet50.toml", "0" * 64)
    done = lock(folder)
    assert done.returncode == 3
    assert "0" * 64 in done.stderr
    assert sha256(DATA[RESNET]) in done.stderr
    assert "vgg16_bn: unchanged" in done.stdout


def test_a_damaged_lock_is_not_written_over(served: FakeHub, folder: Path) -> None:
    lock_path(folder).write_text("<<<<<<< HEAD\n")
    done = lock(folder)
    assert done.returncode == 3
    assert "version control" in done.stderr
    assert lock_path(folder).read_text() == "<<<<<<< HEAD\n"


def test_an_entry_without_a_manifest_goes(served: FakeHub, folder: Path) -> None:
    lock(folder)
    (folder / "vgg16_bn.toml").unlink()
    lock(folder, "resnet50")
    assert set(pins(folder)) == set(NAMES)  # of others nothing was asked
    done = lock(folder)
    assert set(pins(folder)) == {"resnet50"}
    assert "vgg16_bn: removed" in done.stdout


@pytest.mark.parametrize("pinned", [False, True])
def test_another_repository_is_locked_with_upgrade_alone(
    served: FakeHub, folder: Path, pinned: bool
) -> None:
    lock(folder)
    before = lock_path(folder).read_bytes()
    path = folder / "resnet50.toml"
    path.write_text(path.read_text().replace(f'"{RESNET}"', f'"{VGG}"'))
    now = expected(served, VGG)
    if pinned:
        pin(path, now.sha256, revision=now.revision, size=now.size)
    for arguments in (["--locked"], []):
        done = lock(folder, *arguments)
        assert done.returncode == 3
        assert RESNET in done.stderr
        assert VGG in done.stderr
        assert "UPGRADE=resnet50" in done.stderr
        assert lock_path(folder).read_bytes() == before
    done = lock(folder, "--upgrade", "resnet50")
    assert done.returncode == 0, done.stderr
    assert pins(folder)["resnet50"] == now
    assert lock(folder, "--locked").returncode == 0


def test_a_stated_size_that_is_not_the_hubs_is_refused(served: FakeHub, folder: Path) -> None:
    path, right = folder / "resnet50.toml", expected(served, RESNET)
    opened = path.read_text()
    for stated in ({}, {"revision": right.revision}):
        pin(path, right.sha256, size=17, **stated)
        done = lock(folder, "resnet50")
        assert done.returncode == 5
        assert "17 bytes" in done.stderr
        assert f"{right.size} bytes" in done.stderr
        assert "resnet50.toml" in done.stderr
        assert not lock_path(folder).exists()
        path.write_text(opened)
    path.write_text(opened.replace('size = "unlocked"', "size = 17"))  # and no hash
    assert lock(folder, "resnet50").returncode == 5
    assert not lock_path(folder).exists()


@pytest.mark.parametrize("newer", [False, True])
def test_a_locked_size_that_is_not_the_hubs_is_refused(
    served: FakeHub, folder: Path, tmp_path: Path, newer: bool
) -> None:
    lock(folder, "resnet50")
    right = pins(folder)["resnet50"]
    text = lock_path(folder).read_text()
    lock_path(folder).write_text(text.replace(f"size = {right.size}", "size = 17"))
    if newer:
        served.commit(RESNET)
        put(served, RESNET, b"better", tmp_path)
    done = lock(folder, "resnet50")
    assert done.returncode == 5
    assert "17 bytes" in done.stderr
    assert f"{right.size} bytes" in done.stderr
    if not newer:
        assert_golden("weights/lock-other-size", done.stderr)
        done = lock(folder, "--upgrade", "resnet50")
        assert done.returncode == 0, done.stderr
        assert "upgraded" not in done.stdout
        assert pins(folder)["resnet50"] == right


def test_a_name_that_the_repository_never_got_is_refused(served: FakeHub, folder: Path) -> None:
    lock(folder, "resnet50")
    right = pins(folder)["resnet50"]
    with lock_path(folder).open("a") as stream:
        stream.write('moved_to = "someone/else"\n')
    done = lock(folder, "resnet50")
    assert done.returncode == 5
    assert "someone/else" in done.stderr
    done = lock(folder, "--upgrade", "resnet50")
    assert done.returncode == 0, done.stderr
    assert "upgraded from" not in done.stdout  # neither revision nor hash changed
    assert "moved_to from someone/else to none" in done.stdout
    assert pins(folder)["resnet50"] == right


def test_an_origin_that_the_manifest_does_not_state_is_refused(
    served: FakeHub, folder: Path
) -> None:
    pin(folder / "resnet50.toml", sha256(DATA[RESNET]), digest_from="one-public-file")
    lock(folder, "resnet50")
    right = pins(folder)["resnet50"]
    text = lock_path(folder).read_text()
    lock_path(folder).write_text(text.replace("one-public-file", "public-files"))
    for arguments in (["resnet50"], ["--locked", "resnet50"]):
        done = lock(folder, *arguments)
        assert done.returncode == 3
        assert_golden("weights/lock-other-origin", done.stderr)
    done = lock(folder, "--upgrade", "resnet50")
    assert done.returncode == 0, done.stderr
    assert pins(folder)["resnet50"] == right


@pytest.mark.parametrize("field", ["revision", "sha256"])
def test_what_a_manifest_pins_is_not_upgraded(
    served: FakeHub, folder: Path, tmp_path: Path, field: str
) -> None:
    lock(folder, "resnet50")
    path, before = folder / "resnet50.toml", pins(folder)["resnet50"]
    path.write_text(
        path.read_text().replace(f'{field} = "unlocked"', f'{field} = "{getattr(before, field)}"')
    )
    served.commit(RESNET)
    put(served, RESNET, b"better", tmp_path)
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
    assert "[weights]" in done.stdout
    assert sha256(b"better") in done.stdout


def test_a_lost_file_is_not_said_to_be_locked(served: FakeHub, folder: Path) -> None:
    copy_open("resnet101", folder)
    done = lock(folder, "resnet101")
    assert "answers 404" in done.stderr
    assert "UPGRADE" not in done.stderr


def test_an_upgrade_asks_about_nothing_else(served: FakeHub, folder: Path) -> None:
    lock(folder)
    before = pins(folder)
    copy_open("resnet101", folder)  # which the hub lacks
    (folder / "broken.toml").write_text("id = 7\n")
    (folder / "vgg16_bn.toml").unlink()
    done = lock(folder, "--upgrade", "resnet50")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "resnet50: unchanged\n"
    assert pins(folder) == before
    assert lock(folder, "--upgrade", "broken").returncode == 3
    done = lock(folder, "--models", "resnet101", "--upgrade", "resnet50")
    assert done.returncode == 5
    assert "resnet101" in done.stderr


def test_a_stated_revision_is_the_one_that_is_locked(
    served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    before = served.revision(RESNET)
    served.commit(RESNET)
    put(served, RESNET, b"better", tmp_path)
    path = folder / "resnet50.toml"
    path.write_text(path.read_text().replace('revision = "unlocked"', f'revision = "{before}"'))
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
    assert pins(folder)["resnet50"] == expected(served, RESNET, revision=before)


def test_a_commit_that_the_hub_lost_is_replaced_with_upgrade(served: FakeHub, folder: Path) -> None:
    lock(folder)
    served.commit(RESNET)
    del served.repositories[RESNET].commits[0]  # as after a squash of its history
    assert "resnet50: unchanged\n" in lock(folder).stdout
    done = lock(folder, "--upgrade", "resnet50")
    assert done.returncode == 0, done.stderr
    assert pins(folder)["resnet50"] == expected(served, RESNET)


def test_a_check_changes_nothing(served: FakeHub, folder: Path) -> None:
    done = lock(folder, "--locked", "--upgrade", "resnet50")
    assert done.returncode == 2
    assert "UPGRADE=" in done.stderr


def test_an_unknown_model_is_a_usage_error(served: FakeHub, folder: Path) -> None:
    for arguments in (["resnet5"], ["--models", "resnet5"], ["--upgrade", "resnet5"]):
        done = lock(folder, *arguments)
        assert done.returncode == 2
        assert "resnet50" in done.stderr


def describe(hub: FakeHub, folder: Path, *, card: str = "", config: object = None) -> None:
    """Puts a card or a configuration beside the weights."""
    if card:
        (folder / "README.md").write_text(card)
        hub.add(RESNET, "README.md", folder / "README.md")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
        hub.add(RESNET, "config.json", folder / "config.json")


def test_a_licence_that_is_not_the_cards_is_refused_or_has_a_reason(
    served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    describe(served, tmp_path, card="---\nlicense: CC-BY-NC-4.0\ntags: [timm]\n---\n# A model\n")
    path = folder / "resnet50.toml"
    done = lock(folder, "resnet50")
    assert done.returncode == 3
    assert_golden("weights/licence-of-the-card", done.stderr)
    assert not lock_path(folder).exists()
    path.write_text(path.read_text() + '\n[deviations]\nlicence = "granted to us in writing"\n')
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
    assert load_manifest(path).deviations == {"licence": "granted to us in writing"}


@pytest.mark.parametrize(
    "metadata",
    ["license: apache-2.0", "tags: [timm]", "license: other", "license: [mit]", "license: {a: [}"],
)
def test_a_card_that_agrees_or_states_nothing_is_taken(
    metadata: str, served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    describe(served, tmp_path, card=f"---\n{metadata}\n---\n# Model card for resnet50.a1_in1k\n")
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr


def test_a_licence_of_its_own_name_is_compared(
    served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    describe(
        served, tmp_path, card="---\nlicense: other\nlicense_name: dinov3-license\n---\n# A model\n"
    )
    done = lock(folder, "resnet50")
    assert done.returncode == 3
    assert "'dinov3-license'" in done.stderr


A2 = {"architecture": "resnet50", "pretrained_cfg": {"tag": "a2_in1k"}}


@pytest.mark.parametrize(
    "stated",
    [{"config": A2}, {"card": "# Model card for resnet50.a2_in1k\n"}],
    ids=["config.json", "card"],
)
def test_a_tag_that_is_not_the_repositorys_is_refused_or_has_a_reason(
    stated: dict[str, object], served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    describe(served, tmp_path, **stated)  # type: ignore[arg-type]
    done = lock(folder, "resnet50")
    assert done.returncode == 3
    assert_golden("weights/tag-of-the-repository", done.stderr)
    path = folder / "resnet50.toml"
    path.write_text(path.read_text() + '\n[deviations]\ntag = "the hub has it under a2"\n')
    assert lock(folder, "resnet50").returncode == 0


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet50", "pretrained_cfg": {"tag": "a1_in1k"}},
        {"architecture": "resnet50", "pretrained_cfg": {"tag": ""}},
        {"architecture": "resnet50"},
        ["nothing"],
        {"pretrained_cfg": 7},
    ],
)
def test_a_configuration_that_agrees_or_states_nothing_is_taken(
    config: object, served: FakeHub, folder: Path, tmp_path: Path
) -> None:
    describe(served, tmp_path, config=config)
    done = lock(folder, "resnet50")
    assert done.returncode == 0, done.stderr
