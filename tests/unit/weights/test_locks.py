"""``manifests.lock``: its text, what it adds to manifests, and what it may not do."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
from support.fake_nights import NO_IMAGES
from support.goldens import assert_golden, raises_golden
from support.hub_manifests import copy_open, pin

from builders.cli.first_use import confirm_weights, lock_first
from builders.planning.request import Request
from builders.recipe.export_form import Form, export_inputs
from builders.toolchains.elsewhere import Places
from builders.weights import identify, locking, locks
from builders.weights.hub_errors import UnreachableError
from builders.weights.locks import Locks, Pin, read_locked, read_locks, to_toml, with_lock
from builders.weights.mode import WeightsMode
from zoo.schema.manifest import DigestFrom, HubWeights, Manifest, load_manifest
from zoo.schema.precisions import Precision
from zoo.util.errors import ManifestError, UsageError

COMMIT, SHA256 = "a" * 40, "b" * 64
RESNET = Pin(
    repository="timm/resnet50.a1_in1k",
    file="model.safetensors",
    revision=COMMIT,
    sha256=SHA256,
    size=102469840,
    digest_from=DigestFrom.HUB,
)
VGG = RESNET.model_copy(
    update={
        "repository": "timm/vgg16_bn.tv_in1k",
        "moved_to": "timm/vgg16_bn.tv2_in1k",
        "hub": "https://mirror.example",
    }
)


def write(folder: Path, **pins: Pin) -> None:
    with locks.changing(folder) as change:
        change(pins)


def test_the_text_is_the_same_in_whatever_order_models_come(tmp_path: Path) -> None:
    text = to_toml({"vgg16_bn": VGG, "resnet50": RESNET})
    assert text == to_toml({"resnet50": RESNET, "vgg16_bn": VGG})
    assert_golden("weights/lock-text", text)
    locks.lock_path(tmp_path).write_text(text)
    assert read_locks(tmp_path).models == {"resnet50": RESNET, "vgg16_bn": VGG}


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_locks(tmp_path) == Locks()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<<<<<<< HEAD\nversion = 1\n", "not TOML"),
        ("version = 2\n", "version"),
        (to_toml({"resnet50": RESNET}).replace(SHA256, "c" * 63), "models.resnet50.sha256"),
        (to_toml({"resnet50": RESNET}).replace(COMMIT, "main"), "models.resnet50.revision"),
        (to_toml({"resnet50": RESNET}).replace("102469840", '"102469840"'), "resnet50.size"),
        (to_toml({"resnet50": RESNET}).replace('"hub"', '"hearsay"'), "resnet50.digest_from"),
        (to_toml({"resnet50": RESNET}) + 'by = "me"\n', "models.resnet50.by"),
        (to_toml({"resnet50": RESNET}) + 'moved_to = "\\u001b"\n', "models.resnet50.moved_to"),
        (
            to_toml({"resnet50": RESNET}) + f'moved_to = "{RESNET.repository}"\n',
            "the repository's own name",
        ),
        (to_toml({"resnet50": RESNET}) + "hub = 2026-01-01\n", "models.resnet50.hub: .* date"),
        (to_toml({"resnet50": RESNET}) + 'hub = "\\u001b[2J"\n', "models.resnet50.hub: .*001B"),
        ("\xff", "not TOML"),
    ],
)
def test_a_damaged_lock_locks_nothing_anew(tmp_path: Path, text: str, words: str) -> None:
    copy_open("resnet50", tmp_path)
    locks.lock_path(tmp_path).write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError, match=words) as caught:
        read_locked(tmp_path)
    assert "manifests.lock" in caught.value.message
    assert "version control" in str(caught.value.hint)


def test_a_lock_gives_the_key_that_the_manifest_itself_would_give(tmp_path: Path) -> None:
    path = copy_open("resnet50", tmp_path)
    opened = load_manifest(path)
    locked = with_lock(opened, Locks(models={"resnet50": RESNET}))
    pin(path, SHA256, revision=COMMIT, size=102469840)
    stated = load_manifest(path)
    form = Form(dialect="dynamo-20", precision=Precision.FP32)
    keys = {
        export_inputs(manifest, identify(manifest, WeightsMode.MANIFEST), form, "photos").key
        for manifest in (locked, stated)
    }
    assert len(keys) == 1


def test_revision_size_and_standing_are_no_part_of_the_key(tmp_path: Path) -> None:
    opened = load_manifest(copy_open("resnet50", tmp_path))
    other = RESNET.model_copy(
        update={"revision": "c" * 40, "size": 1, "digest_from": DigestFrom.DOWNLOAD}
    )
    one, two = (
        identify(with_lock(opened, Locks(models={"resnet50": lock})), WeightsMode.MANIFEST)
        for lock in (RESNET, other)
    )
    assert one == two


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(
    ("field", "value"), [("repository", "timm/resnet50.a2_in1k"), ("file", "ema.safetensors")]
)
def test_a_lock_of_another_file_is_refused(
    tmp_path: Path, field: str, value: str, pinned: bool
) -> None:
    path = copy_open("resnet50", tmp_path)
    if pinned:
        pin(path, SHA256)
    write(tmp_path, resnet50=RESNET.model_copy(update={field: value}))
    good, bad = read_locked(tmp_path)
    assert not good
    assert value in bad["resnet50"].message
    assert str(getattr(RESNET, field)) in bad["resnet50"].message
    assert "UPGRADE=resnet50" in (bad["resnet50"].hint or "")


@pytest.mark.parametrize(
    ("stated", "entry", "agree"),
    [
        (None, "hub", True),
        (None, "download", True),
        (None, "public-files", False),
        ("one-public-file", "one-public-file", True),
        ("one-public-file", "download", True),
        ("one-public-file", "public-files", False),
        ("one-public-file", "hub", False),
        ("public-files", "public-files", True),
        ("public-files", "one-public-file", False),
        ("download", "download", True),
        ("download", "public-files", False),
    ],
)
def test_an_entry_claims_no_other_origin_than_its_manifest(
    tmp_path: Path, stated: str | None, entry: str, agree: bool
) -> None:
    path = copy_open("resnet50", tmp_path)
    if stated is not None:
        pin(path, SHA256, digest_from=stated)
    write(tmp_path, resnet50=RESNET.model_copy(update={"digest_from": DigestFrom(entry)}))
    good, bad = read_locked(tmp_path)
    assert list(good) == (["resnet50"] if agree else [])
    if not agree:
        assert entry in bad["resnet50"].message
        assert stated is None or stated in bad["resnet50"].message


def test_another_process_may_have_locked_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_open("resnet50", tmp_path)
    theirs = RESNET.model_copy(update={"repository": "timm/resnet50.a2_in1k"})

    def meanwhile(manifest: Manifest) -> Pin:
        write(tmp_path, resnet50=theirs)
        return RESNET

    monkeypatch.setattr(locking, "resolve", meanwhile)
    outcome = locking.lock_missing(tmp_path, read_locked(tmp_path)[0].values())
    assert read_locks(tmp_path).models == {"resnet50": theirs}
    assert theirs.repository in str(outcome.errors["resnet50"])


@pytest.mark.parametrize(
    ("field", "value"), [("sha256", "d" * 64), ("size", 7), ("revision", "d" * 40)]
)
def test_a_lock_that_contradicts_its_manifest_blocks_that_model_alone(
    tmp_path: Path, field: str, value: str | int
) -> None:
    copy_open("vgg16_bn", tmp_path)
    stated = {"sha256": SHA256, field: value}
    pin(copy_open("resnet50", tmp_path), str(stated.pop("sha256")), **stated)
    write(tmp_path, resnet50=RESNET)
    good, bad = read_locked(tmp_path)
    assert list(good) == ["vgg16_bn"]
    assert str(value) in bad["resnet50"].message
    assert str(getattr(RESNET, field)) in bad["resnet50"].message


def test_a_download_confirms_what_was_locked_and_nothing_else(tmp_path: Path) -> None:
    copy_open("resnet50", tmp_path)
    copy_open("vgg16_bn", tmp_path)
    write(tmp_path, resnet50=RESNET, vgg16_bn=VGG)
    used, _ = read_locked(tmp_path)
    assert locking.confirm(tmp_path, {"resnet50": used["resnet50"]}) == ["resnet50"]
    pins = read_locks(tmp_path).models
    assert pins["resnet50"].digest_from is DigestFrom.DOWNLOAD
    assert pins["vgg16_bn"] == VGG
    assert locking.confirm(tmp_path, {"resnet50": used["resnet50"]}) == []
    write(tmp_path, resnet50=RESNET.model_copy(update={"sha256": "e" * 64}))
    assert locking.confirm(tmp_path, {"resnet50": used["resnet50"]}) == []


def test_changes_at_once_lose_nothing(tmp_path: Path) -> None:
    def add(name: str) -> None:
        with locks.changing(tmp_path) as change:
            change({**read_locks(tmp_path).models, name: RESNET})

    names = [f"model{number}" for number in range(20)]
    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_locks(tmp_path).models) == sorted(names)


def test_a_hub_that_does_not_answer_is_not_asked_about_every_model(tmp_path: Path) -> None:
    manifest = load_manifest(copy_open("resnet50", tmp_path))
    models = [manifest.model_copy(update={"id": f"model{number}"}) for number in range(100)]
    asked = []

    def question(model: Manifest) -> str:
        asked.append(model.id)
        raise UnreachableError(f"{model.id}: no network")

    answers, errors = locking.ask(models, question)
    assert not answers
    assert list(errors) == [model.id for model in models]
    assert len(asked) < len(models)

    def reached_first(model: Manifest) -> str:
        if model.id == "model0":
            return "there"
        time.sleep(0.01)  # after the answer
        raise UnreachableError(f"{model.id}: timed out")

    answers, errors = locking.ask(models, reached_first)
    assert all("timed out" in error.message for error in errors.values())


@pytest.mark.parametrize("other", [False, True], ids=["same", "other"])
def test_what_another_process_has_just_locked_stays(
    other: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_open("resnet50", tmp_path)
    copy_open("vgg16_bn", tmp_path)
    theirs = RESNET.model_copy(update={"sha256": "e" * 64} if other else {"revision": "e" * 40})

    def meanwhile(manifest: Manifest) -> Pin:
        if manifest.id == "resnet50":
            write(tmp_path, resnet50=theirs)
        return {"resnet50": RESNET, "vgg16_bn": VGG}[manifest.id]

    monkeypatch.setattr(locking, "resolve", meanwhile)
    outcome = locking.lock_missing(tmp_path, read_locked(tmp_path)[0].values())
    assert read_locks(tmp_path).models == {"resnet50": theirs, "vgg16_bn": VGG}
    assert outcome.new == {"vgg16_bn": VGG}
    assert list(outcome.errors) == (["resnet50"] if other else [])
    for error in outcome.errors.values():
        assert SHA256 in error.message
        assert "e" * 64 in error.message


def test_a_folder_that_cannot_be_written_stops_only_what_needs_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a read-only checkout: a stated hash is enough to build from."""
    copy_open("densenet121", tmp_path)
    dense = RESNET.model_copy(update={"repository": "timm/densenet121.ra_in1k"})
    write(tmp_path, densenet121=dense)
    pin(copy_open("resnet50", tmp_path), SHA256)
    copy_open("vgg16_bn", tmp_path)
    pins = {"resnet50": RESNET, "vgg16_bn": VGG}
    monkeypatch.setattr(locking, "resolve", lambda manifest: pins[manifest.id])

    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(locks, "write_whole", refuse)
    said: list[str] = []
    request = request_of(tmp_path)
    after = lock_first(request, said.append, locked=False)
    assert list(after.unlocked) == ["vgg16_bn"]
    assert "manifests.lock" in after.unlocked["vgg16_bn"].message
    assert any("manifests.lock" in line for line in said)
    confirm_weights(after, ["densenet121"], said.append, locked=False)  # no error at the end
    assert "manifests.lock" in said[-1]
    assert read_locks(tmp_path).models == {"densenet121": dense}


def request_of(folder: Path) -> Request:
    return Request(
        manifests=read_locked(folder)[0], manifest_dir=folder,
        places=Places(lines=(), elsewhere=frozenset(), here=frozenset()), precisions=None,
        weights=WeightsMode.MANIFEST, calibration=NO_IMAGES, failures=folder / "_failures",
    )  # fmt: skip


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises_golden(UsageError, "weights/lock-not-writable", {tmp_path: "TMP"}):
        write(tmp_path / "file", resnet50=RESNET)


def test_a_standing_needs_a_hash(tmp_path: Path) -> None:
    path = copy_open("resnet50", tmp_path)
    path.write_text(path.read_text().replace("[backbone]", 'digest_from = "hub"\n[backbone]', 1))
    with pytest.raises(ManifestError, match="digest_from"):
        load_manifest(path)


def test_what_is_locked_is_of_the_hub(tmp_path: Path) -> None:
    locked = with_lock(
        load_manifest(copy_open("resnet50", tmp_path)), Locks(models={"resnet50": RESNET})
    )
    assert isinstance(locked.weights, HubWeights)
    assert locked.weights.locked
    assert locked.weights.digest_from is DigestFrom.HUB
