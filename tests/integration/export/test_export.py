"""Export: frozen, dynamic in the batch, the same bytes in any folder."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.goldens import assert_golden, raises_golden
from support.paths import ROOT, TESTS
from support.records import backbone_cut, weights_identity
from torch import nn

from builders.export import fp32, run
from builders.export.backbone import Backbone, check_width, create
from builders.export.onnx import (
    compare_with_golden,
    normalise_onnx,
    write_golden,
    write_onnx,
)
from builders.export.sizes import largest_tensor
from builders.jobs.messages import ExportJob
from builders.jobs.progress import silent
from builders.photos.calibration import shipped
from builders.precision import to_low
from builders.precision.graph import name_nodes
from builders.precision.onnx_session import open_onnx
from builders.recipe.export_form import DIALECTS, Form, export_inputs
from zoo.schema.keys import ExportInputs
from zoo.schema.manifest import BackboneCut, Manifest
from zoo.schema.precisions import Precision
from zoo.schema.records import Advice
from zoo.util.errors import ExportError, ManifestError


class Restless(nn.Module):
    """A network whose training mode shows: dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        nn.init.uniform_(self.norm.running_mean, -1, 1)  # type: ignore[arg-type]

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.drop(torch.relu(self.norm(self.conv(images))))
        return found


def pooled(width: int) -> BackboneCut:
    return backbone_cut(feature_dim=width)


def test_a_backbone_is_frozen_whatever_is_asked() -> None:
    model = Restless().train()
    backbone = Backbone(model, pooled(8))
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(backbone(images), backbone(images))


def test_an_export_is_in_evaluation_mode_and_takes_any_batch(tmp_path: Path) -> None:
    model = Restless().train()
    backbone = Backbone(model, pooled(8))
    write_onnx(backbone, 32, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    for node in graph.node:
        assert node.op_type != "Dropout"
        assert not any(a.name == "training_mode" and a.i for a in node.attribute)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for batch in (1, 2, 3, 7):
        images = np.random.default_rng(batch).standard_normal((batch, 3, 32, 32), np.float32)
        (found,) = session.run(None, {"images": images})
        expected = backbone(torch.from_numpy(images)).numpy()
        assert np.allclose(found, expected, atol=1e-5)
    # Statistics of the batch would have moved these.
    assert model.norm.num_batches_tracked == 0


EXPORT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_export import Restless, pooled
from builders.export import fp32, run
from builders.export.backbone import Backbone
from builders.export.onnx import write_onnx
torch.manual_seed(0)
write_onnx(Backbone(Restless(), pooled(8)), 32, Path(sys.argv[1]))
"""


def test_two_folders_give_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "another/deeper"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        script = folder / "export_it.py"
        script.write_text(EXPORT)
        subprocess.run(
            [sys.executable, "-W", "ignore", str(script), str(folder / "m.onnx"),
             str(Path(__file__).parent)],
            check=True, cwd=folder, timeout=300,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"},
        )  # fmt: skip
        data = (folder / "m.onnx").read_bytes()
        assert str(tmp_path).encode() not in data
        assert str(ROOT).encode() not in data
        digests.add(hashlib.sha256(data).hexdigest())
    assert len(digests) == 1


def test_normalising_takes_out_what_is_of_this_machine(tmp_path: Path) -> None:
    write_onnx(Backbone(Restless(), pooled(8)), 32, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    clean = model.SerializeToString(deterministic=True)
    model.producer_version = "99.0"
    model.doc_string = "/home/somebody"
    model.graph.node[0].doc_string = "File /home/somebody/x.py"
    model.graph.node[0].metadata_props.add(key="stack", value="/home/somebody")
    model.graph.metadata_props.add(key="x", value="y")
    normalise_onnx(model)
    assert model.SerializeToString(deterministic=True) == clean


def test_a_width_that_the_network_does_not_give_is_an_error() -> None:
    images = torch.zeros(2, 3, 32, 32)
    with raises_golden(ExportError, "export/other-width", match=r"\b9\b.*\b8\b"):
        check_width("toy", Backbone(Restless(), pooled(9)), images)
    cut = backbone_cut(cut="cls_token", feature_dim=8)
    with raises_golden(ExportError, "export/no-width", match="feature_dim"):
        check_width("toy", Backbone(Restless(), cut), images)
    with raises_golden(ExportError, "export/cut-of-another-network", match="pre_logits"):
        other = backbone_cut(cut="pre_logits", feature_dim=8)
        check_width("toy", Backbone(Restless(), other), images)


@pytest.mark.parametrize(
    ("field", "name", "near"), [("arch", "resnet5O", "'resnet"), ("tag", "a9_in1k", "'ra_in1k'")]
)
def test_what_timm_does_not_have_is_named(
    field: str, name: str, near: str, manifests: dict[str, Manifest]
) -> None:
    with pytest.raises(ManifestError, match=f"'{name}'.*{near}") as caught:
        create(manifests["resnet50"].model_copy(update={field: name}))
    assert caught.value.exit_code == 3


def small(manifests: dict[str, Manifest], **preprocess: Any) -> Manifest:
    """A manifest of a toy network: 32 pixels, 8 features."""
    base = manifests["resnet50"]
    values = {"input_size": 32, **preprocess}
    return base.model_copy(
        update={
            "backbone": pooled(8),
            "preprocess": base.preprocess.model_copy(update=values),
        }
    )


def test_an_export_that_differs_from_pytorch_is_refused(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    torch.manual_seed(0)
    backbone = Backbone(Restless(), pooled(8))
    manifest = small(manifests)
    write_golden(backbone, manifest, tmp_path / "golden.npz")
    write_onnx(backbone, 32, tmp_path / "m.onnx")
    onnx_path, golden = tmp_path / "m.onnx", tmp_path / "golden.npz"
    assert compare_with_golden(onnx_path, golden, manifest, (1, 3)).worst_cosine > 0.9999
    other = small(manifests, mean=(0.0, 0.9, 0.1))
    with pytest.raises(ExportError, match=r"resnet50: .*cosine") as caught:
        fp32._compare(other, open_onnx(onnx_path), golden, {})
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("spoils", [-1.0, float("nan")])
def test_a_precision_that_is_far_off_on_golden_photos_leaves_the_others(
    spoils: float,
    tmp_path: Path,
    manifests: dict[str, Manifest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    backbone, manifest = Backbone(Restless(), pooled(8)), small(manifests)
    write_golden(backbone, manifest, tmp_path / "golden.npz")
    write_onnx(backbone, 32, tmp_path / "m.onnx")

    def lower(
        job: ExportJob, inputs: ExportInputs, fp32: Path, path: Path, report: object
    ) -> Advice:
        model = onnx.load(fp32)
        if inputs.precision == "int8":
            for tensor in model.graph.initializer:
                values = onnx.numpy_helper.to_array(tensor)
                if values.dtype == np.float32:
                    changed = (values * spoils).astype(np.float32)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
        onnx.save(model, path)
        return Advice(operators=1)

    monkeypatch.setattr(run, "_lower", lower)
    photos = shipped()
    identity = weights_identity(kind="seeded", source="a seed")
    asked = [
        export_inputs(manifest, identity, Form(dialect="dynamo-20", precision=precision), "photos")
        for precision in ("fp32", "fp16", "int8")
    ]
    paths = {"golden": tmp_path / "golden.npz", "onnx": tmp_path / "m.onnx"}
    job: Any = SimpleNamespace(
        manifest=manifest, calibration=photos, fp32=SimpleNamespace(golden="golden", onnx="onnx"),
        inputs={one.precision: one for one in asked[1:]},
    )  # fmt: skip
    workspace: Any = SimpleNamespace(output=tmp_path / "out", blob=paths.__getitem__)
    workspace.output.mkdir()
    made = run.run_export(job, workspace, silent)
    assert [one.inputs.precision for one in made.exports] == ["fp16"]
    [refused] = made.disabled
    assert refused.inputs.precision == "int8"
    reason = re.sub(r"nan|-?[01]\.\d{6}", "COSINE", refused.reason)
    assert_golden("export/misses-on-golden-photos", reason)
    assert refused.advice == Advice(operators=1)


class Windows(nn.Module):
    """Attention within windows, five-dimensional as Hiera's, with timm's switch."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.fused_attn = fused
        self.weight = nn.Parameter(torch.randn(3, 8))
        self.runs: list[bool] = []

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        self.runs.append(self.fused_attn)
        rows = images.flatten(2).transpose(1, 2) @ self.weight
        windows = rows.reshape(rows.shape[0], 1, 4, -1, 8)
        if self.fused_attn:
            attended = nn.functional.scaled_dot_product_attention(windows, windows, windows)
        else:
            scores = windows @ windows.transpose(-2, -1) * 8**-0.5
            attended = scores.softmax(-1) @ windows
        return attended.flatten(1, 3).transpose(1, 2).unsqueeze(-1)


def test_what_exports_only_without_fused_attention_is_exported_so(tmp_path: Path) -> None:
    network = Windows()
    backbone = Backbone(network, pooled(8))
    images = torch.randn(3, 3, 8, 8)
    expected = backbone(images)
    (note,) = write_onnx(backbone, 8, tmp_path / "m.onnx")
    assert "only 4D query, key, and value are supported" in note
    assert network.fused_attn, "golden features are those of the network as it is"
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (features,) = session.run(None, {"images": images.numpy()})
    assert np.allclose(features, expected.numpy(), atol=1e-5)


def test_what_exports_with_fused_attention_keeps_it(tmp_path: Path) -> None:
    class Plain(Windows):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            self.runs.append(self.fused_attn)
            rows = (images.flatten(2).transpose(1, 2) @ self.weight).unsqueeze(1)
            attended = nn.functional.scaled_dot_product_attention(rows, rows, rows)
            return attended.transpose(1, 3)

    network = Plain()
    assert write_onnx(Backbone(network, pooled(8)), 8, tmp_path / "m.onnx") == ()
    assert all(network.runs)


class Refused(nn.Module):
    """A network that no exporter takes, whatever its attention."""

    def __init__(self, error: Exception, fused: bool) -> None:
        super().__init__()
        self.error, self.fused_attn = error, fused

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize(
    "error",
    [ValueError("a step\nthat is \x1b[31mthe cause\x1b[0m"), TypeError("the cause"),
     AssertionError("the cause"), KeyError("the cause"), NotImplementedError("the cause")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_the_cause_of_a_failed_export_is_said(
    tmp_path: Path, error: Exception, dialect: str, fused: bool
) -> None:
    with pytest.raises(ExportError) as caught:
        write_onnx(Backbone(Refused(error, fused), pooled(8)), 8, tmp_path / "m.onnx", dialect)
    assert "the cause" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert caught.value.exit_code == 6


def test_dead_features_are_refused(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    model = Restless()
    nn.init.zeros_(model.conv.weight)
    with raises_golden(ExportError, "export/dead-features"):
        write_golden(Backbone(model, pooled(8)), small(manifests), tmp_path / "golden.npz")
    nn.init.constant_(model.conv.weight, float("nan"))
    with raises_golden(ExportError, "export/not-finite"):
        write_golden(Backbone(model, pooled(8)), small(manifests), tmp_path / "golden.npz")


def test_the_largest_tensor_is_counted_per_image(tmp_path: Path) -> None:
    write_onnx(Backbone(Restless(), pooled(8)), 32, tmp_path / "m.onnx")
    assert largest_tensor(onnx.load(tmp_path / "m.onnx")) == 8 * 30 * 30


class BatchedWindows(nn.Module):
    """Moves windows into the batch, as Swin does: its largest tensor starts with ``16*batch``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.grow = nn.Linear(4, 32)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv(images)
        batch, width, size = x.shape[0], x.shape[1], x.shape[2]
        x = x.view(batch, width, size // 8, 8, size // 8, 8).permute(0, 2, 4, 3, 5, 1)
        x = self.grow(x.reshape(-1, 64, width))  # windows first
        return x.view(batch, -1, 32).mean(1)


class Tokens(nn.Module):
    """Puts the batch second, behind the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.grow = nn.Linear(8, 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.grow(self.conv(images).flatten(2).permute(2, 0, 1)).mean(0)


class Padded(nn.Module):
    """Pads by a computed amount; the TorchScript exporter then loses track of every shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = images.shape[-1]
        add = (-(size // -2) - 1) * 2 + 3 - size
        return self.conv(nn.functional.pad(images, (0, add, 0, add), value=1.0)).mean((2, 3))


class Table(nn.Module):
    """Adds a table that is larger than every activation and the same for any batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.table = nn.Parameter(torch.zeros(64, 8, 64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.conv(images).flatten(2) + self.table.mean(0) * self.table.sum()).mean(2)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("network", "largest"),
    [
        (BatchedWindows, 16 * 64 * 32),
        (Tokens, 64 * 64),
        (Padded, 3 * 33 * 33),
        (Table, 3 * 32 * 32),
    ],
    ids=["windows in the batch", "batch second", "computed padding", "a large table"],
)
def test_a_merged_or_moved_batch_counts_once(
    network: type[nn.Module], largest: int, dialect: str, tmp_path: Path
) -> None:
    write_onnx(network().eval(), 32, tmp_path / "m.onnx", DIALECTS[dialect])
    assert largest_tensor(onnx.load(tmp_path / "m.onnx")) == largest


def test_a_lower_precision_has_the_same_shapes(tmp_path: Path) -> None:
    write_onnx(Padded().eval(), 32, tmp_path / "m.onnx", DIALECTS["torchscript-17"])
    model = onnx.load(tmp_path / "m.onnx")
    name_nodes(model)
    assert largest_tensor(to_low(model, Precision.FP16, set())) == 3 * 33 * 33
