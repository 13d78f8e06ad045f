"""Manifests agree with timm, and one that does not is refused where it is exported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.goldens import assert_golden
from support.paths import MANIFESTS, ROOT

from builders.cli.timm_refusals import refused_by_timm
from builders.export import timm_facts
from builders.export.backbone import import_timm
from builders.export.fp32 import export_fp32
from builders.recipe import facts_table
from zoo.schema.manifest import (
    Fact,
    HubWeights,
    Manifest,
)
from zoo.util.errors import ManifestError

NAMES = sorted(path.stem for path in MANIFESTS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_is_timms(name: str, manifests: dict[str, Manifest]) -> None:
    """Read from timm once more: the check of the export is not asked about itself."""
    manifest = manifests[name]
    timm_facts.check_manifest(manifest)
    config = import_timm().get_pretrained_cfg(manifest.timm_name)
    ours = manifest.preprocess
    is_test = ours.size_of == "test"
    size = config.test_input_size if is_test else config.input_size
    assert (3, ours.height, ours.width) == size or Fact.INPUT_SIZE in manifest.deviations
    assert ours.crop == (config.test_crop_pct or config.crop_pct if is_test else config.crop_pct)
    assert ours.interpolation == config.interpolation
    assert (ours.mean, ours.std) == (config.mean, config.std)
    assert ours.crop_mode == config.crop_mode
    assert manifest.licence == config.license
    if isinstance(manifest.weights, HubWeights):
        assert manifest.weights.repository == config.hf_hub_id


# Of timm's tags: what a manifest that was copied from another model's states wrongly.
COPIED = [
    ("convnextv2_nano", "fcmae_ft_in22k_in1k_384", {"input_size", "crop", "crop_mode", "licence"}),
    ("vit_base_patch16_siglip_224", "webli", {"crop", "interpolation", "mean", "std"}),
    ("vit_base_patch16_clip_224", "openai", {"crop", "mean", "std"}),
    ("vit_base_patch16_sapiens2", "fb",
     {"input_size", "crop", "crop_mode", "interpolation", "licence"}),
    ("deepseek_vit_412m", "deepseek_v4_1_flash",
     {"input_size", "crop", "crop_mode", "mean", "std", "licence"}),
    ("volo_d5_512", "sail_in1k", {"input_size", "crop"}),
    ("dm_nfnet_f0", "dm_in1k", {"input_size", "crop", "crop_mode"}),
]  # fmt: skip


@pytest.mark.parametrize(("arch", "tag", "wrong"), COPIED)
def test_the_facts_of_another_model_are_refused(
    arch: str, tag: str, wrong: set[str], manifests: dict[str, Manifest]
) -> None:
    manifest = copied(manifests["resnet50"], arch, tag)
    with pytest.raises(ManifestError) as refused:
        timm_facts.check_manifest(manifest)
    fields = {line.split(": ")[1] for line in refused.value.message.splitlines()}
    assert {field.removeprefix("preprocess.") for field in fields} >= wrong - {"interpolation"}
    reasons = {field.rpartition(".")[2]: "a test" for field in fields}
    timm_facts.check_manifest(manifest.model_copy(update={"deviations": reasons}))


def copied(base: Manifest, arch: str, tag: str) -> Manifest:
    weights = base.weights.model_copy(update={"repository": f"timm/{arch}.{tag}"})
    return base.model_copy(update={"arch": arch, "tag": tag, "weights": weights})


def test_weights_of_a_tag_that_is_not_named_are_refused(manifests: dict[str, Manifest]) -> None:
    untagged = manifests["resnet50"].model_copy(update={"tag": ""})
    with pytest.raises(ManifestError, match=r"resnet50: tag: empty.*resnet50\.a1_in1k") as refused:
        timm_facts.check_manifest(untagged)
    assert_golden("recipe/tag-not-named", refused.value)
    own = manifests["resnet50"].weights.model_copy(update={"repository": "me/mine"})
    timm_facts.check_manifest(untagged.model_copy(update={"weights": own}))


@pytest.mark.parametrize("change", [{"arch": "resnet5O"}, {"tag": "a9_in1k"}], ids=["arch", "tag"])
def test_what_timm_does_not_have_is_refused(
    change: dict[str, str], manifests: dict[str, Manifest]
) -> None:
    ((field, name),) = change.items()
    with pytest.raises(ManifestError, match=f"resnet50: {field}: .*{name}"):
        timm_facts.check_manifest(manifests["resnet50"].model_copy(update=change))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def wrong_crop(manifest: Manifest) -> Manifest:
    stated = manifest.preprocess.model_copy(update={"crop": 0.5})
    return manifest.model_copy(update={"preprocess": stated})


def test_timm_is_asked_again_before_its_table_refuses_anything(
    home: Path, manifests: dict[str, Manifest]
) -> None:
    resnet = manifests["resnet50"]
    wrong, unknown = wrong_crop(resnet), resnet.model_copy(update={"tag": "a9_in1k"})
    asked = {"good": resnet, "wrong": wrong.model_copy(update={"id": "wrong"})}
    assert refused_by_timm(asked) == {}  # no table: nothing is known without importing timm
    timm_facts.remember()
    assert refused_by_timm({"good": resnet}) == {}
    assert list(refused_by_timm(asked)) == ["wrong"]
    assert "tag: timm has no tag" in refused_by_timm({"a": unknown})["resnet50"].message
    truth = facts_table.read_table()
    lie = truth[resnet.timm_name].model_copy(update={"mean": (0.5, 0.5, 0.51)})
    facts_table.write_table({**truth, resnet.timm_name: lie})
    assert refused_by_timm({"good": resnet}) == {}
    assert facts_table.read_table() == truth


@pytest.mark.parametrize("content", [b"", b"{}", b'{"a": '])
def test_a_damaged_table_clears_nothing_and_is_written_again(
    content: bytes, home: Path, manifests: dict[str, Manifest]
) -> None:
    timm_facts.remember()
    path = facts_table.table_path()
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(content)
    assert list(refused_by_timm({"wrong": wrong_crop(manifests["resnet50"])})) == ["resnet50"]
    assert path.read_bytes() == whole


def test_the_export_job_checks_seeded_weights_too(
    tmp_path: Path, manifests: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    job: Any = SimpleNamespace(
        manifest=copied(manifests["resnet50"], "dm_nfnet_f0", "dm_in1k"), state=None,
        weights=SimpleNamespace(seeded=True), inputs={"fp32": SimpleNamespace(dialect="x")},
    )  # fmt: skip
    workspace: Any = SimpleNamespace(output=tmp_path)
    with pytest.raises(ManifestError, match=r"preprocess\.crop_mode: .*'squash'"):
        export_fp32(job, workspace, lambda done, note: None)
    assert not list(tmp_path.glob("*.*"))
    assert len(facts_table.read_table()) > 1000  # planning knows now


def test_the_command_names_every_difference_and_tells_planning(
    tmp_path: Path, manifest_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    path = manifest_dir / "resnet50.toml"
    path.write_text(path.read_text().replace("crop = 0.95", "crop = 0.875"))

    def farm(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "builders.cli", "--manifests", str(manifest_dir), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)

    options = ("--models", "resnet50", "--weights", "seeded", "--gpu", "cpu", "--precision", "fp32")
    plan = ("plan", *options, "--store", str(tmp_path / "store"))
    assert farm(*plan).returncode == 0  # timm has not been asked yet
    (manifest_dir / "broken.toml").write_text("id = ")
    done = farm("facts", "resnet50", "vgg16_bn", "broken")
    assert done.returncode == 3
    assert done.stdout == "vgg16_bn: as timm states\n"
    assert "broken" in done.stderr
    assert re.search(r"resnet50: preprocess\.crop: .*0\.875", done.stderr)
    assert len(facts_table.read_table()) > 1000
    blocked = farm(*plan)
    assert re.search(r"preprocess\.crop: .*0\.875", blocked.stdout)
    with path.open("a") as file:
        file.write('\n[deviations]\ncrop = "measured to be better"\n')
    done = farm("facts", "resnet50")
    assert done.stdout == "resnet50: crop differs: measured to be better\n"
    assert farm(*plan).returncode == 0
