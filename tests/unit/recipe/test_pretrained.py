"""A manifest is compared with what timm states, fact by fact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.goldens import assert_golden

from builders.recipe import facts_table
from builders.recipe.pretrained import PretrainedFacts, check_facts
from zoo.schema.manifest import CropMode, Fact, Interpolation, Manifest
from zoo.util.errors import ManifestError

FACTS = PretrainedFacts(
    name="resnet50.a1_in1k", input_size=(224, 224), test_input_size=(288, 288), crop=0.95,
    test_crop=1.0, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    licence="apache-2.0", repository="timm/resnet50.a1_in1k",
)  # fmt: skip


@pytest.fixture
def resnet(manifests: dict[str, Manifest]) -> Manifest:
    return manifests["resnet50"]


def changed(manifest: Manifest, **preprocess: Any) -> Manifest:
    stated = manifest.preprocess.model_copy(update=preprocess)
    return manifest.model_copy(update={"preprocess": stated})


def test_a_manifest_that_agrees_passes(resnet: Manifest) -> None:
    check_facts(resnet, FACTS, "1")
    check_facts(changed(resnet, input_size=288, crop=1.0, size_of="test"), FACTS, "1")


def test_a_tag_of_one_size_is_tested_at_it(resnet: Manifest) -> None:
    one_size = FACTS.model_copy(update={"test_input_size": None, "test_crop": None})
    check_facts(resnet, one_size, "1")
    check_facts(changed(resnet, size_of="test"), one_size, "1")
    another_crop = FACTS.model_copy(update={"test_input_size": None, "test_crop": 0.9})
    check_facts(changed(resnet, size_of="test", crop=0.9), another_crop, "1")
    with pytest.raises(ManifestError, match=r"preprocess\.crop: .*\b0\.95\b.*\b0\.9\n"):
        check_facts(changed(resnet, size_of="test"), another_crop, "1")


WRONG: list[tuple[Fact, dict[str, Any]]] = [
    (Fact.INPUT_SIZE, {"input_size": 256}),
    (Fact.INPUT_SIZE, {"input_size": (224, 192)}),
    (Fact.CROP, {"crop": 0.875}),
    (Fact.CROP_MODE, {"crop_mode": CropMode.SQUASH}),
    (Fact.INTERPOLATION, {"interpolation": Interpolation.BILINEAR}),
    (Fact.MEAN, {"mean": (0.5, 0.5, 0.5)}),
    (Fact.MEAN, {"mean": (0.406, 0.456, 0.485)}),  # BGR
    (Fact.STD, {"std": (0.229, 0.224, 0.226)}),
]


@pytest.mark.parametrize(("fact", "change"), WRONG)
def test_a_difference_in_preprocessing_is_an_error_or_has_a_reason(
    fact: Fact, change: dict[str, Any], resnet: Manifest
) -> None:
    wrong = changed(resnet, **change)
    with pytest.raises(
        ManifestError, match=rf"resnet50: preprocess\.{fact}: .*\btimm 1\b"
    ) as error:
        check_facts(wrong, FACTS, "1")
    assert error.value.exit_code == 3
    assert len(error.value.message.splitlines()) == 1
    check_facts(wrong.model_copy(update={"deviations": {fact: "why"}}), FACTS, "1")


def test_licence_and_repository_are_compared(resnet: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"licence: .*'mit'.*'apache-2\.0'"):
        check_facts(resnet.model_copy(update={"licence": "mit"}), FACTS, "1")
    weights = resnet.weights.model_copy(update={"repository": "timm/resnet50.a2_in1k"})
    other = resnet.model_copy(update={"weights": weights})
    with pytest.raises(ManifestError, match=r"weights\.repository: .*a2_in1k.*a1_in1k"):
        check_facts(other, FACTS, "1")
    check_facts(other.model_copy(update={"deviations": {Fact.REPOSITORY: "why"}}), FACTS, "1")
    for licence in (None, "unknown"):
        check_facts(resnet, FACTS.model_copy(update={"licence": licence}), "1")


def test_all_that_is_wrong_is_named_at_once(resnet: Manifest) -> None:
    wrong = changed(resnet, input_size=256, crop=0.5, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    facts = FACTS.model_copy(update={"fixed_size": True, "licence": "cc-by-nc-4.0"})
    with pytest.raises(ManifestError) as error:
        check_facts(wrong, facts, "1")
    assert len(error.value.message.splitlines()) == 5
    assert_golden("recipe/not-as-timm-states", error.value)


@pytest.mark.parametrize("facts", [FACTS, None])
def test_a_reason_without_a_difference_is_an_error(
    facts: PretrainedFacts | None, resnet: Manifest
) -> None:
    idle = resnet.model_copy(update={"deviations": {Fact.CROP: "why"}})
    with pytest.raises(ManifestError, match=r"resnet50: deviations\.crop: ") as error:
        check_facts(idle, facts, "1")
    assert_golden(f"recipe/idle-deviation-{'tag' if facts else 'no-tag'}", error.value)


def test_the_table_belongs_to_the_installed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass
    class Timm:
        record: str | None = "timm/__init__.py,sha256=1,9"
        origin: str | None = None

        def read_text(self, name: str) -> str | None:
            return self.record if name == "RECORD" else self.origin

    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    for timm in (Timm(record=None), Timm(origin='{"dir_info": {"editable": true}}')):
        monkeypatch.setattr(facts_table, "distribution", lambda name, timm=timm: timm)
        facts_table.write_table({"a.b": FACTS})
        assert facts_table.read_table() == {}
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(facts_table, "distribution", lambda name: Timm())
    assert facts_table.read_table() == {}
    facts_table.write_table({"a.b": FACTS})
    assert facts_table.read_table() == {"a.b": FACTS}
    path = facts_table.table_path()
    assert path is not None
    monkeypatch.setattr(facts_table, "distribution", lambda name: Timm(record="other"))
    assert facts_table.read_table() == {}
    monkeypatch.setattr(facts_table, "distribution", lambda name: Timm())
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:40], whole.replace(b"0.406", b"0.41"), b'{"a.b": {}}'):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(facts_table.DamagedTableError):
            facts_table.read_table()
        facts_table.write_table({"a.b": FACTS})
        assert path.read_bytes() == whole


def test_the_table_clears_only_what_agrees_with_it(resnet: Manifest) -> None:
    table = {FACTS.name: FACTS}
    assert facts_table.clears(table, resnet)
    own = resnet.weights.model_copy(update={"repository": "me/mine"})
    assert facts_table.clears(table, resnet.model_copy(update={"tag": "", "weights": own}))
    doubtful: list[dict[str, Any]] = [
        {"tag": "a9_in1k"}, {"tag": ""}, {"arch": "resnet5O"}, {"arch": "resnet5O", "tag": ""},
        {"deviations": {Fact.CROP: "why"}},
    ]  # fmt: skip
    for change in doubtful:
        assert not facts_table.clears(table, resnet.model_copy(update=change)), change
    assert not facts_table.clears(table, changed(resnet, crop=0.875))
