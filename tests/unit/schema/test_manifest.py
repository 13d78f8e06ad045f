"""Manifests: those that exist, and what is said of bad ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.goldens import raises_golden
from support.models import MISSION
from support.paths import MANIFESTS, TESTS

from zoo.schema.manifest import (
    DigestFrom,
    HubWeights,
    Manifest,
    load_manifest,
    load_manifests,
    manifest_schema,
    select_manifests,
)
from zoo.util.errors import ManifestError, UsageError

BAD = sorted((TESTS / "manifests").glob("*.toml"))


def test_the_models_of_the_mission_and_their_widths(manifests: dict[str, Manifest]) -> None:
    widths = {name: manifest.backbone.feature_dim for name, manifest in manifests.items()}
    assert widths.items() >= MISSION.items()  # a new model is a new file and nothing else


def test_nothing_is_invented(manifests: dict[str, Manifest]) -> None:
    """No hub could be asked when these were written: what they state, public files record."""
    origins: Counter[DigestFrom | None] = Counter()
    for manifest in manifests.values():
        weights = manifest.weights
        if isinstance(weights, HubWeights):
            assert weights.revision == "unlocked"
            assert weights.pinned is (weights.digest_from is not None)
            assert weights.pinned or (weights.size == "unlocked" and not weights.recorded_revisions)
            origins[weights.digest_from] += 1
    del origins[None]  # all others: make lock asks a hub for them
    assert origins == {DigestFrom.PUBLIC_FILES: 6, DigestFrom.PUBLIC_FILE: 6}


def test_the_schema_is_current() -> None:
    written = json.loads((MANIFESTS / "schema.json").read_text())
    assert written == json.loads(json.dumps(manifest_schema())), "run zoo-farm schema"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_is_explained(path: Path) -> None:
    """The first line of each file says what its error must hold."""
    expected = re.findall(r"`([^`]+)`", path.read_text().splitlines()[0])
    assert expected
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    message = str(caught.value)
    assert str(path) in message
    for part in expected:
        assert part in message, f"{part!r} is not in: {message}"


def test_there_are_bad_manifests() -> None:
    assert len(BAD) >= 12


def test_selecting_by_name_glob_and_family(manifests: dict[str, Manifest]) -> None:
    def select(*patterns: str) -> list[str]:
        return list(select_manifests(manifests, patterns))

    assert select("resnet50") == ["resnet50"]
    assert {"resnet50", "resnet101", "resnet152"} <= set(select("resnet*"))
    assert set(select("resnet")) == {m.id for m in manifests.values() if m.family == "resnet"}
    assert select() == list(manifests)
    with pytest.raises(UsageError, match="'resnet50'"):
        select("resnet5")


def test_every_bad_manifest_of_a_folder_is_reported(manifest_dir: Path) -> None:
    for name in ("resnet50", "vgg16_bn"):
        path = manifest_dir / f"{name}.toml"
        path.write_text(path.read_text().replace("feature_dim", "feature_dims"))
    with pytest.raises(ManifestError) as caught:
        load_manifests(manifest_dir)
    assert "resnet50.toml" in str(caught.value)
    assert "vgg16_bn.toml" in str(caught.value)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with raises_golden(ManifestError, "schema/no-manifests"):
        load_manifests(tmp_path)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_manifest_never_gives_a_traceback(data: st.DataObject) -> None:
    """Whatever one line of a manifest becomes, it loads or is a ManifestError."""
    lines = (MANIFESTS / "resnet50.toml").read_text().splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    key = lines[number].partition("=")[0]
    value = data.draw(
        st.sampled_from(["-1", "0", '""', "[]", "{}", "nan", "true", '"x"', "1e400", "'''", "2"])
    )
    lines[number] = f"{key}= {value}"
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.toml"
        path.write_text("\n".join(lines))
        try:
            load_manifest(path)
        except ManifestError as error:
            assert str(path) in str(error)


def refusal(manifest_dir: Path, before: str, after: str) -> str:
    """Returns what is said of a manifest in which something is replaced."""
    path = manifest_dir / "dinov2_small.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("control", [0x00, 0x08, 0x0D, 0x1B, 0x7F, 0x80, 0x9B])
@pytest.mark.parametrize("field", ["title", "summary", "use_case", "size_reason"])
def test_control_characters_are_refused(manifest_dir: Path, field: str, control: int) -> None:
    message = refusal(manifest_dir, f'{field} = "', f'{field} = "\\u{control:04x}')
    assert f".{field}: " in message
    assert f"U+{control:04X}" in message
    assert chr(control) not in message


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("characteristics = [", 'characteristics = ["a\\u001b[31m", ', "catalog.characteristics.0"),
        ("[deviations]", '[deviations]\ncrop = "a\\u0000"', "deviations.crop"),
        ('origin = "https://', 'origin = "https://\\u001b', "origin"),
        ("[arguments]", '[arguments]\nx = "\\n"', "arguments.x"),
        ("[arguments]", "[arguments]\nx = 2020-01-01", "arguments.x"),
        ('title = "', 'title = 2020-01-01 # "', "catalog.title"),
    ],
)
def test_values_that_no_field_takes_are_named(
    manifest_dir: Path, before: str, after: str, field: str
) -> None:
    assert f": {field}: " in refusal(manifest_dir, before, after)


def test_text_may_have_lines(manifest_dir: Path) -> None:
    path = manifest_dir / "dinov2_small.toml"
    path.write_text(path.read_text().replace('summary = "', 'summary = "One.\\n\\tTwo. ', 1))
    assert load_manifest(path).catalog.summary.startswith("One.\n\tTwo. ")


@pytest.mark.parametrize(
    "size", ["true", "'224'", "0", "-224", "4097", "224.0", "[224, 0]", "2020-01-01", "[224, 4097]"]
)
def test_a_size_that_no_network_has_is_refused(manifest_dir: Path, size: str) -> None:
    message = refusal(manifest_dir, "img_size = 224", f"img_size = {size}")
    assert "arguments.img_size: " in message


@pytest.mark.parametrize("size", ["196", "[224, 448]", "518"])
def test_a_network_is_made_for_its_input(manifest_dir: Path, size: str) -> None:
    message = refusal(manifest_dir, "img_size = 224", f"img_size = {size}")
    assert f"arguments.img_size: {size} is not preprocess.input_size, 224" in message


def test_an_unknown_precision_is_the_only_fault(manifest_dir: Path) -> None:
    path = manifest_dir / "dinov2_small.toml"
    line = next(x for x in path.read_text().splitlines() if x.startswith("precisions = "))
    message = refusal(manifest_dir, line, 'precisions = ["fp8"]')
    assert "'fp8'" in message
    assert "\n" not in message
    path.write_text(path.read_text().replace('["fp8"]', '["fp16", "fp32", "fp16"]'))
    with pytest.raises(ManifestError, match=r"precisions: .*fp16 is listed more than once"):
        load_manifest(path)


def test_a_byte_order_mark_is_named(manifest_dir: Path) -> None:
    path = manifest_dir / "dinov2_small.toml"
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    with pytest.raises(ManifestError, match="byte order mark"):
        load_manifest(path)
