"""``docs/models.md``, and the measurements that it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.goldens import raises_golden
from support.hub_manifests import pin
from support.paths import MANIFESTS, ROOT

from builders.cli.models import MEASURED, UNSUPPORTED, page, read_unsupported
from builders.measure.beside_timm import BesideTimm, add_rows, read_rows
from builders.weights.standing import DIGEST_FACTS
from zoo.schema.manifest import DigestFrom, Manifest
from zoo.schema.measurements import Cost
from zoo.util.errors import UsageError


def row(model: str = "resnet50", **changes: object) -> BesideTimm:
    cost = Cost(seconds=1.0, peak_memory=2**30)
    stated = {
        "model": model, "targets": "cpu-ort1.32-fp32", "status": "verified", "cosine": 0.9999994,
        "export": cost, "build": cost, "size": 100, "seeded": True,
    }  # fmt: skip
    return BesideTimm.model_validate({**stated, **changes})


def test_the_page_is_current() -> None:
    written = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert written == page(MANIFESTS, ROOT), "run zoo-farm models > docs/models.md"


def test_every_measured_model_has_a_manifest(manifests: dict[str, Manifest]) -> None:
    assert {measured.model for measured in read_rows(ROOT / MEASURED)} <= set(manifests)
    names = [network.name for network in read_unsupported(ROOT / UNSUPPORTED)]
    assert len(set(names)) == len(names)


def test_a_page_says_what_was_measured_and_who_states_a_hash(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in ("resnet50", "dinov2_small", "dinov3_vit_small"):
        shutil.copy(MANIFESTS / f"{name}.toml", folder)
    (tmp_path / UNSUPPORTED).parent.mkdir(parents=True)
    shutil.copy(ROOT / UNSUPPORTED, tmp_path / UNSUPPORTED)
    add_rows(tmp_path / MEASURED, [row(), row("dinov2_small", cosine=None, status="pending")])
    lines = {
        line.split("`")[1]: line for line in page(folder, tmp_path).splitlines() if "`: " in line
    }
    assert list(lines) == ["dinov2_small", "dinov3_vit_small", "resnet50"]
    assert DIGEST_FACTS[DigestFrom.PUBLIC_FILES].words in lines["resnet50"]
    assert "cpu-ort1.32-fp32: verified, 0.999999, seeded" in lines["resnet50"]
    assert "img_size = 224" in lines["dinov2_small"]
    assert "| unlocked | cpu-ort1.32-fp32: pending, seeded |" in lines["dinov2_small"]
    assert "| (dinov3-license) |" in lines["dinov3_vit_small"]
    pin(folder / "dinov2_small.toml", "ab" * 32, digest_from="hub")
    assert DIGEST_FACTS[DigestFrom.HUB].words in page(folder, tmp_path)


def test_a_second_measurement_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    add_rows(path, [row("vgg16_bn"), row()])
    add_rows(path, [row(cosine=0.5), row(targets="sm86-rtx1.7-fp16", cosine=None)])
    read = read_rows(path)
    assert [(one.model, one.targets, one.cosine) for one in read] == [
        ("resnet50", "cpu-ort1.32-fp32", 0.5),
        ("resnet50", "sm86-rtx1.7-fp16", None),
        ("vgg16_bn", "cpu-ort1.32-fp32", 0.9999994),
    ]


@pytest.mark.parametrize("text", ["{", '[{"model": 3}]'])
def test_a_file_of_something_else_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with raises_golden(UsageError, "cli/not-measurements"):
        add_rows(path, [row()])
    assert path.read_text() == text
    path.write_text("[[networks]]")
    with raises_golden(UsageError, "cli/not-unsupported"):
        read_unsupported(path)
