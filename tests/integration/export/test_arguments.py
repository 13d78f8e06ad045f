"""Arguments that a manifest gives timm's network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.goldens import assert_golden
from support.paths import ROOT
from support.records import backbone_cut

from builders import weights
from builders.export import backbone
from builders.recipe.export_form import Form, export_inputs
from builders.weights.mode import WeightsMode
from builders.weights.state import load_state
from zoo.schema.manifest import (
    Argument,
    FileWeights,
    Manifest,
    StatedPreprocess,
    load_manifest,
)
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError, ManifestError, WeightsError

ViT = "test_vit"


def manifest_of(base: Manifest, arch: str, size: int, **arguments: Argument) -> Manifest:
    preprocess = StatedPreprocess(**{**base.preprocess.model_dump(), "input_size": size})
    return base.model_copy(
        update={
            "id": "mine", "arch": arch, "tag": "", "arguments": arguments,
            "backbone": backbone_cut(cut="cls_token", feature_dim=64), "preprocess": preprocess,
        }
    )  # fmt: skip


@pytest.fixture
def base(manifests: dict[str, Manifest]) -> Manifest:
    return manifests["resnet50"]


def test_arguments_change_the_network(base: Manifest) -> None:
    model = backbone.create(manifest_of(base, ViT, 96, img_size=96, global_pool="avg"))
    assert model.state_dict()["pos_embed"].shape == (1, 1 + 36, 64)
    assert "fc_norm.weight" in model.state_dict()


def test_a_pair_of_numbers_is_an_argument(base: Manifest) -> None:
    model = backbone.create(manifest_of(base, ViT, 96, img_size=(96, 160)))
    assert model.state_dict()["pos_embed"].shape == (1, 1 + 60, 64)


@pytest.mark.parametrize(
    ("arguments", "golden"),
    [
        ({"image_size": 96}, "unknown"),
        ({"in_chans": 1}, "not-a-manifests"),
        ({"pretrained": True}, "of-create-model"),
        ({"img_size": 96, "global_pool": "nonsense"}, "value"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(
    base: Manifest, arguments: dict[str, Argument], golden: str
) -> None:
    with pytest.raises(ExportError) as refused:
        backbone.create(manifest_of(base, ViT, 96, **arguments))
    assert refused.value.exit_code == 6
    assert "arguments" in refused.value.message
    assert_golden(f"export/argument-{golden}", refused.value)


def test_a_network_made_of_a_configuration_is_asked_too(base: Manifest) -> None:
    """RegNets take further words for their configuration, which has no such field either."""
    with pytest.raises(ExportError):
        backbone.create(manifest_of(base, "regnety_002", 96, img_size=96))


def saved(arch: str, folder: Path) -> tuple[dict[str, torch.Tensor], FileWeights]:
    """Saves random weights of an architecture at its own size."""
    timm = backbone.import_timm()
    torch.manual_seed(0)
    state = timm.create_model(arch, pretrained=False).state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    path = folder / "mine.safetensors"
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return state, FileWeights(source="file", path=path.name, sha256=digest)


@pytest.mark.parametrize(
    ("arch", "resampled"), [(ViT, ["pos_embed"]), ("test_vit3", ["pos_embed"])]
)
def test_weights_of_another_size_are_resampled_as_timm_does(
    base: Manifest, tmp_path: Path, arch: str, resampled: list[str]
) -> None:
    create_model = backbone.import_timm().create_model
    state, own = saved(arch, tmp_path)
    manifest = manifest_of(base, arch, 96, img_size=96).model_copy(update={"weights": own})
    model = backbone.create(manifest)
    notes = load_state(model, manifest, tmp_path / own.path)
    expected = create_model(
        arch, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)}, img_size=96
    ).state_dict()
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    changed = [name for name in state if state[name].shape != loaded[name].shape]
    assert changed == resampled
    assert all(name in notes[0] for name in resampled)


def test_what_timm_can_not_resample_is_refused(base: Manifest, tmp_path: Path) -> None:
    _, own = saved(ViT, tmp_path)
    manifest = manifest_of(base, ViT, 96, img_size=96, embed_dim=32, num_heads=2)
    manifest = manifest.model_copy(update={"weights": own})
    with pytest.raises(WeightsError, match="shape"):
        load_state(backbone.create(manifest), manifest, tmp_path / own.path)


def key(manifest: Manifest) -> str:
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    form = Form(dialect="dynamo-20", precision=Precision.FP32)
    return export_inputs(manifest, identity, form, "photos").key


def test_each_argument_is_in_the_keys(base: Manifest) -> None:
    without = manifest_of(base, ViT, 96)
    variants: list[dict[str, Argument]] = [
        {"img_size": 96}, {"img_size": 192}, {"dynamic_img_size": True}, {"class_token": False},
        {"global_pool": "avg"}, {"img_size": 96, "global_pool": "avg"},
    ]  # fmt: skip
    given = [manifest_of(base, ViT, 96, **arguments) for arguments in variants]
    assert len({key(manifest) for manifest in (without, *given)}) == 1 + len(given)
    states = {weights.identify(m, WeightsMode.SEEDED).digest for m in (without, *given)}
    assert len(states) == 1 + len(given)


def test_keys_without_arguments_do_not_mention_them(base: Manifest) -> None:
    identity = weights.identify(base, WeightsMode.SEEDED)
    form = Form(dialect="dynamo-20", precision=Precision.FP32)
    assert "arguments" not in export_inputs(base, identity, form, "photos").model_dump(mode="json")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("img_size = 224", 224), ("img_size = [224, 448]", (224, 448)), ("x = true", True),
        ('global_pool = "avg"', "avg"), ("init_values = 1e-5", 1e-5),
    ],
)  # fmt: skip
def test_a_manifest_states_arguments_in_a_table(tmp_path: Path, line: str, value: Argument) -> None:
    path = tmp_path / "resnet50.toml"
    text = (ROOT / "manifests" / path.name).read_text()
    if isinstance(value, tuple):
        text = text.replace("input_size = 224", f"input_size = {list(value)}")
    path.write_text(f"{text}\n[arguments]\n{line}\n")
    (read,) = load_manifest(path).arguments.values()
    assert read == value
    assert type(read) is type(value)


LINES = [
    "img_size = [1, 2, 3]", "Img-Size = 3", "img_size = {a = 1}", "x = 2020-01-01",
    "x = 07:32:00", "x = 2020-01-01T07:32:00Z", 'x = "\\u0000"',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_an_argument_of_another_kind_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "resnet50.toml"
    text = (ROOT / "manifests" / path.name).read_text()
    path.write_text(f"{text}\n[arguments]\n{line}\n")
    with pytest.raises(ManifestError, match="arguments"):
        load_manifest(path)
