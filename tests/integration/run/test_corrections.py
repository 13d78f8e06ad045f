"""Corrected facts of a real repository, through ``make zoo`` and the client."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.make_farm import Counts, Farm, counts
from support.models import LITE
from support.paths import ROOT

from zoo.schema.index import ModelIndex
from zoo.schema.layout import blob_key
from zoo.schema.licences import licence_text

FORBIDDEN = "cc-by-nc-4.0"
RIGHT = 'licence = "apache-2.0"'


def index(farm: Farm) -> ModelIndex:
    found = farm.repository.model_index(LITE)
    assert found is not None
    return found


def correct(farm: Farm, old: str, new: str) -> subprocess.CompletedProcess[str]:
    """Changes a manifest and runs the farm; the licence differs from timm's with a reason."""
    farm.edit(LITE, old, new)
    text = (farm.manifests / f"{LITE}.toml").read_text()
    if "[deviations]" not in text:
        farm.edit(LITE, "[catalog]", '[deviations]\nlicence = "a test"\n\n[catalog]')
    if RIGHT in text:
        farm.edit(LITE, '[deviations]\nlicence = "a test"\n\n', "")
    return farm.make(f"MODELS={LITE}", "GPU=cpu,sm86")


def test_a_licence_corrected_twice_and_back(copy: Farm) -> None:
    out = copy.folder / "engine.onnx"
    target = ("--target", "cpu-ort1.32-fp32")
    first = copy.zoo("pull", LITE, *target, "-o", str(out))
    assert first.returncode == 0, first.stderr
    assert (copy.folder / "engine.onnx.LICENSE").read_text() == licence_text("apache-2.0")
    blobs = set(copy.store.glob("blobs/sha256/*/*"))
    before = index(copy)

    for old, new in (("apache-2.0", "mit"), ("mit", "bsd-3-clause")):
        done = correct(copy, f'licence = "{old}"', f'licence = "{new}"')
        assert done.returncode == 0, done.stdout + done.stderr
        assert counts(done) == Counts(current=3)
    after = index(copy)
    assert [entry.record_file for entry in after.engines] == [
        entry.record_file for entry in before.engines
    ]
    manifest = (copy.manifests / f"{LITE}.toml").read_bytes()
    for change, (old, new) in zip(
        after.corrected, (("apache-2.0", "mit"), ("mit", "bsd-3-clause")), strict=True
    ):
        assert (change.fact, change.before, change.after) == ("licence", old, new)
        assert change.source is not None
        assert change.source.commit is None  # these manifests are in no checkout
        assert change.signer
    assert after.corrected[-1].source is not None
    assert after.corrected[-1].source.sha256 == hashlib.sha256(manifest).hexdigest()
    new_blobs = set(copy.store.glob("blobs/sha256/*/*")) - blobs
    assert {path.stat().st_size for path in new_blobs} <= set(range(5000))  # documents alone

    second = copy.zoo("pull", LITE, *target, "-o", str(out))
    assert after.corrected[-1].time[:10] in second.stderr
    assert re.search(r"\bbsd-3-clause\b.*\bapache-2\.0\b", second.stderr)
    assert (copy.folder / "engine.onnx.LICENSE").read_text() == licence_text("bsd-3-clause")
    assert "bsd-3-clause" in (copy.folder / "engine.onnx.NOTICE").read_text()
    assert "apache-2.0" not in copy.zoo("pull", LITE, *target).stderr  # said once
    shown = copy.zoo("show", LITE).stdout
    assert re.findall(r"from (\S+) to (\S+)", shown) == [
        ("apache-2.0", "mit"), ("mit", "bsd-3-clause")
    ]  # fmt: skip
    site = copy.folder / "site"
    pages = [path.read_text() for path in site.rglob("*.html")]
    for entry in after.engines:
        for blob in entry.documents.values():
            assert any(blob.sha256 in page for page in pages)

    back = correct(copy, 'licence = "bsd-3-clause"', RIGHT)
    assert back.returncode == 0, back.stdout + back.stderr
    assert all(entry.documents == {} for entry in index(copy).engines)
    assert "apache-2.0, was: bsd-3-clause" in copy.zoo("pull", LITE, *target).stderr
    third = copy.zoo("pull", LITE, *target, "-o", str(out))
    assert third.returncode == 0
    assert (copy.folder / "engine.onnx.LICENSE").read_text() == licence_text("apache-2.0")


def test_title_and_origin_reach_the_notice_from_a_checkout(copy: Farm, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *who, *words], cwd=copy.manifests, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "manifests")
    title = next(
        line for line in (copy.manifests / f"{LITE}.toml").read_text().splitlines()
        if line.startswith("title = ")
    )  # fmt: skip
    done = correct(copy, title, 'title = "Another title"')
    assert done.returncode == 0, done.stdout
    (change,) = index(copy).corrected
    assert change.source is not None
    assert (change.source.commit, change.source.changed) == (git("rev-parse", "HEAD"), True)
    git("commit", "-qam", "origin", "--allow-empty")
    origin = index(copy).origin
    done = correct(copy, origin, "https://example.org/elsewhere")
    assert done.returncode == 0, done.stdout
    notices = {entry.documents["NOTICE"].sha256 for entry in index(copy).engines}
    for digest in notices:
        text = (copy.store / blob_key(digest)).read_text()
        assert "Another title" in text
        assert "https://example.org/elsewhere" in text
    assert all(list(entry.documents) == ["NOTICE"] for entry in index(copy).engines)


def test_a_licence_that_forbids_publishing(copy: Farm) -> None:
    done = correct(copy, RIGHT, f'licence = "{FORBIDDEN}"')
    assert done.returncode != 0
    assert counts(done) == Counts(failed=1)
    forbidden = index(copy)
    assert forbidden.licence == FORBIDDEN
    assert {entry.status for entry in forbidden.engines} == {"withdrawn"}
    assert [change.after for change in forbidden.corrected] == [FORBIDDEN]
    refused = copy.zoo("pull", LITE)
    assert refused.returncode == 11
    assert FORBIDDEN in refused.stderr
    pages = list((copy.folder / "site").rglob("*.html"))
    assert any(re.search(r"<p .*\blicence\b.*\bwithdrawn\b", path.read_text()) for path in pages)
    again = correct(copy, f'licence = "{FORBIDDEN}"', f'licence = "{FORBIDDEN}" ')
    assert again.returncode != 0
    assert index(copy) == forbidden  # nothing is added night after night

    back = correct(copy, f'licence = "{FORBIDDEN}" ', RIGHT)
    assert index(copy).licence == "apache-2.0"  # corrected back; a person decides about the rest
    assert {entry.status for entry in index(copy).engines} == {"withdrawn"}
    assert back.returncode != 0


def test_a_forbidding_licence_withdraws_although_timm_states_another(copy: Farm) -> None:
    """No reason is given for the difference, which is another error of the manifest."""
    copy.edit(LITE, RIGHT, f'licence = "{FORBIDDEN}"')
    assert copy.make(f"MODELS={LITE}", "GPU=cpu").returncode != 0
    assert {entry.status for entry in index(copy).engines} == {"withdrawn"}


@pytest.mark.full
def test_two_models_of_the_same_weights(copy: Farm) -> None:
    """They share export and engine by content; a correction of one is not one of the other."""
    other = "efficientnet_lite0_again"
    text = (copy.manifests / f"{LITE}.toml").read_text()
    (copy.manifests / f"{other}.toml").write_text(text.replace(f'id = "{LITE}"', f'id = "{other}"'))
    done = copy.make(f"MODELS={other}", "GPU=cpu", "PRECISION=fp32")
    assert done.returncode == 0, done.stdout + done.stderr
    correct(copy, RIGHT, 'licence = "mit"')
    twin = copy.repository.model_index(other)
    assert twin is not None
    assert (twin.licence, twin.corrected) == ("apache-2.0", ())
    assert all(entry.documents == {} for entry in twin.engines)
    assert index(copy).licence == "mit"
    pulled = copy.zoo("pull", other, "--target", "cpu-ort1.32-fp32", "-o", "twin.onnx")
    assert pulled.returncode == 0, pulled.stderr
    assert (copy.folder / "twin.onnx.LICENSE").read_text() == licence_text("apache-2.0")

    shared = {entry.engine.sha256 for entry in twin.engines}
    assert shared <= {entry.engine.sha256 for entry in index(copy).engines}
    done = correct(copy, 'licence = "mit"', f'licence = "{FORBIDDEN}"')
    assert f"{other}: " in done.stdout  # the same bytes: what is said of one is said of the other
    twin = copy.repository.model_index(other)
    assert twin is not None
    assert {entry.status for entry in twin.engines} == {"withdrawn"}
    done = copy.make(f"MODELS={other}", "GPU=cpu", "PRECISION=fp32")
    assert done.returncode != 0
    assert FORBIDDEN in done.stdout


def test_gc_check_and_mirror_know_the_new_documents(copy: Farm) -> None:
    correct(copy, RIGHT, 'licence = "mit"')
    (licence,) = {entry.documents["LICENSE"].sha256 for entry in index(copy).engines}
    for _ in range(2):
        swept = farm_command(copy, "gc", "--delete", "--grace", "0")
        assert swept.returncode == 0, swept.stderr
    path = copy.store / blob_key(licence)
    assert path.read_text() == licence_text("mit")
    mirrored = copy.zoo("mirror", str(copy.folder / "copy"))
    assert mirrored.returncode == 0, mirrored.stderr
    shutil.copy(f"{copy.store}.keys/root.json", copy.folder / "root.json")
    pulled = copy.zoo(
        "pull", LITE, "--target", "cpu-ort1.32-fp32", "-o", "m.onnx", "--trust", "root.json",
        ZOO_STORE=str(copy.folder / "copy"), ZOO_HOME=str(copy.folder / "other"),
    )  # fmt: skip
    assert pulled.returncode == 0, pulled.stderr
    assert (copy.folder / "m.onnx.LICENSE").read_text() == licence_text("mit")
    path.unlink()
    assert farm_command(copy, "check").returncode != 0
    assert farm_command(copy, "check", "--repair").returncode == 0
    assert path.read_text() == licence_text("mit")
    assert farm_command(copy, "check").returncode == 0


def farm_command(farm: Farm, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs ``zoo-farm`` on a repository."""
    return subprocess.run(
        [sys.executable, "-m", "builders.cli", *words, "--store", str(farm.store)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **farm.home},
    )  # fmt: skip
