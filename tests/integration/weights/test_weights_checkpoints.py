"""Fine-tuned checkpoints: another head, wrappers and prefixes, and what can't be loaded."""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import io
import lzma
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.goldens import assert_golden, raises_golden
from support.models import SMALL
from support.paths import ROOT
from torch import nn

from builders.export import backbone
from builders.weights import fetch
from builders.weights.reading import read_file
from builders.weights.state import load_state
from zoo.schema.manifest import BackboneCut, Cut, FileWeights, Manifest
from zoo.util.errors import WeightsError

State = dict[str, torch.Tensor]
Load = Callable[..., tuple[nn.Module, tuple[str, ...]]]


@pytest.fixture
def state(manifests: dict[str, Manifest]) -> State:
    torch.manual_seed(0)
    model = backbone.create(manifests[SMALL])
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def load(tmp_path: Path, manifests: dict[str, Manifest]) -> Load:
    """Saves a checkpoint and loads it as a manifest's own weights."""

    def load(saved: Any, suffix: str = ".pth", **changes: Any) -> tuple[nn.Module, tuple[str, ...]]:
        path = tmp_path / f"mine{suffix}"
        save_file(saved, path) if suffix == ".safetensors" else torch.save(saved, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        values = {"source": "file", "path": path.name, "sha256": digest, **changes}
        weights = FileWeights.model_validate(values)
        manifest = manifests[SMALL].model_copy(update={"weights": weights})
        model = backbone.create(manifest)
        return model, load_state(model, manifest, fetch(manifest, tmp_path))

    return load


def holds(model: nn.Module, state: State) -> bool:
    """Whether a model has the tensors of a state, apart from its classifier."""
    loaded = model.state_dict()
    return all(
        torch.equal(loaded[name], tensor)
        for name, tensor in state.items()
        if not name.startswith("classifier.")
    )


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


def test_a_plain_state_dict_has_nothing_to_say(state: State, load: Load) -> None:
    model, notes = load(state)
    assert holds(model, state)
    assert notes == ()
    assert torch.equal(model.state_dict()["classifier.weight"], state["classifier.weight"])


HEADS: dict[str, State] = {
    "ten-classes": {"classifier.weight": torch.ones(10, 1024), "classifier.bias": torch.ones(10)},
    "none": {},
    "of-layers": {"classifier.0.weight": torch.ones(9, 1024), "classifier.2.bias": torch.ones(10)},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_head_of_its_own_does_not_matter(
    state: State, load: Load, head: str, suffix: str
) -> None:
    model, notes = load({**without_head(state), **HEADS[head]}, suffix)
    assert holds(model, state)
    assert "classifier.weight" in notes[0]
    # Nothing may be classified with random weights.
    assert model.state_dict()["classifier.weight"].isnan().all()


WRAPPERS: dict[str, Callable[[State], dict[str, Any]]] = {
    "state_dict": lambda state: {"epoch": 3, "arch": "x", "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "ema": lambda state: {"ema": state, "loss": torch.tensor(0.1)},
    "model_ema": lambda state: {"model_ema": state, "args": argparse.Namespace(lr=0.1)},
    "state_dict_ema": lambda state: {"state_dict_ema": state, "best": 0.9},
    "module": lambda state: {"module": state},
    "ema.shadow": lambda state: {"ema": {"decay": 0.99, "shadow": state}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_is_found_and_said(state: State, load: Load, wrapper: str) -> None:
    model, notes = load(WRAPPERS[wrapper](state))
    assert holds(model, state)
    assert notes == (f"state dict '{wrapper}'",)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "backbone.", "model.", "encoder.", "module._orig_mod.",
     "model.backbone.", "anything.at_all."],
)  # fmt: skip
def test_a_prefix_is_found_and_said(state: State, load: Load, prefix: str) -> None:
    prefixed = {f"{prefix}{name}": tensor for name, tensor in without_head(state).items()}
    model, notes = load({"state_dict": {**prefixed, "criterion.weight": torch.ones(3)}})
    assert holds(model, state)
    assert any(f"'{prefix}'" in note for note in notes)
    assert any("criterion.weight" in note for note in notes)


def changed(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


def test_two_state_dicts_need_a_choice(state: State, load: Load) -> None:
    both = {"model": state, "ema": changed(state)}
    with pytest.raises(WeightsError) as caught:
        load(both)
    assert_golden("weights/two-state-dicts", str(caught.value))
    assert holds(load(both, state="model")[0], state)
    model, notes = load(both, state="ema")
    assert holds(model, changed(state))
    assert "'ema'" in notes[0]
    with pytest.raises(WeightsError, match=r"weights\.state") as caught:
        load(both, state="emma")
    assert "ema" in str(caught.value.hint)


def test_two_state_dicts_of_the_same_tensors_need_none(state: State, load: Load) -> None:
    model, notes = load({"state_dict": state, "state_dict_ema": dict(state)})
    assert holds(model, state)
    assert re.search(r"'state_dict'.*\bstate_dict_ema\b", notes[0])


def test_two_prefixes_need_a_choice(state: State, load: Load) -> None:
    both = {f"student.{name}": tensor for name, tensor in state.items()}
    both |= {f"teacher.{name}": tensor for name, tensor in changed(state).items()}
    with pytest.raises(WeightsError) as caught:
        load(both)
    assert_golden("weights/two-prefixes", str(caught.value))
    assert holds(load(both, prefix="student.")[0], state)
    assert holds(load(both, prefix="teacher.")[0], changed(state))
    with pytest.raises(WeightsError, match=r"weights\.prefix") as caught:
        load(both, prefix="pupil.")
    assert "'student.'" in str(caught.value.hint)


@pytest.mark.parametrize("ignored", ["student.", "teacher."])
def test_what_is_ignored_does_not_choose_between_variants(
    state: State, load: Load, ignored: str
) -> None:
    """``ignore`` is not part of a key, so two manifests would share one and differ in weights."""
    student = {f"student.{name}": tensor for name, tensor in state.items()}
    teacher = {f"teacher.{name}": tensor for name, tensor in changed(state).items()}
    with pytest.raises(WeightsError, match="prefix"):
        load({**student, **teacher}, ignore=[ignored])


def test_the_hint_on_a_second_model_with_a_prefix_names_both_choices(
    state: State, load: Load
) -> None:
    both = {**state, **{f"ema.{name}": tensor for name, tensor in changed(state).items()}}
    with pytest.raises(WeightsError) as caught:
        load(both)
    assert "ignore = ['ema.']" in str(caught.value.hint)
    assert 'prefix = "ema."' in str(caught.value.hint)
    assert holds(load(both, ignore=["ema."])[0], state)
    assert holds(load(both, prefix="ema.")[0], changed(state))


INSIDE = "blocks.1.0."


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_fsdp_wrapped_module.", "model.backbone."])
def test_a_wrapper_of_a_single_block_is_found_and_said(
    state: State, load: Load, prefix: str, wrapper: str
) -> None:
    wrapped = {
        prefix + name.replace(INSIDE, f"{INSIDE}{wrapper}."): tensor
        for name, tensor in state.items()
    }
    model, notes = load(wrapped)
    assert holds(model, state)
    assert any(f"'{wrapper}' within names" in note for note in notes)


def test_a_block_that_is_there_twice_is_not_chosen_by_its_wrapper(state: State, load: Load) -> None:
    second = {
        name.replace(INSIDE, f"{INSIDE}_orig_mod."): tensor + 1
        for name, tensor in state.items()
        if name.startswith(INSIDE)
    }
    with pytest.raises(WeightsError, match="_orig_mod"):
        load({**state, **second})


@pytest.mark.parametrize(
    "name", ["lora_A.default.weight", "parametrizations.weight.original0", "base_layer.weight"]
)
def test_what_weights_are_computed_from_is_to_be_merged(
    state: State, load: Load, name: str
) -> None:
    """To ignore an adapter would be to publish the weights from before the fine-tuning."""
    with pytest.raises(WeightsError) as caught:
        load({**state, f"conv_stem.{name}": torch.ones(3)})
    assert "merge" in str(caught.value.hint)
    assert "ignore" not in str(caught.value.hint)


def test_the_hint_on_renamed_tensors_that_are_needed_does_not_say_ignore(
    state: State, load: Load
) -> None:
    state["conv_first.weight"] = state.pop("conv_stem.weight")
    with pytest.raises(WeightsError) as caught:
        load(state)
    assert "conv_first.weight" in caught.value.message
    assert "conv_stem.weight (missing)" in str(caught.value.hint)
    assert "ignore" not in str(caught.value.hint)


OTHER_TYPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "int8": lambda tensor: (100 * tensor).to(torch.int8),
    "uint8": lambda tensor: tensor.to(torch.uint8),
    "bool": lambda tensor: tensor > 0,
    "complex64": lambda tensor: tensor.to(torch.complex64),
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_what_is_no_floating_point_number_is_no_weight(state: State, load: Load, kind: str) -> None:
    """PyTorch casts whole numbers, such as quantised weights, without a word."""
    with pytest.raises(WeightsError, match=r"conv_stem\.weight \("):
        load({**state, "conv_stem.weight": OTHER_TYPES[kind](state["conv_stem.weight"])})


def test_a_quantised_head_does_not_matter(state: State, load: Load) -> None:
    head = torch.ones_like(state["classifier.weight"]).to(torch.int8)
    model, notes = load({**state, "classifier.weight": head})
    assert holds(model, state)
    assert any("classifier.weight" in note for note in notes)


def test_a_counter_may_be_averaged(state: State, load: Load) -> None:
    assert holds(load({**state, "bn1.num_batches_tracked": torch.tensor(0.0)})[0], state)


def test_fp8_is_said(state: State, load: Load) -> None:
    eight = {
        name: tensor.to(torch.float8_e4m3fn) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    assert load(eight)[1] == ("stored as float8_e4m3fn, computed in float32",)


def test_a_missing_tensor_that_is_needed_is_named(state: State, load: Load) -> None:
    del state["conv_stem.weight"]
    state["classifier.weight"] = torch.ones(10, 1024)
    with pytest.raises(WeightsError) as caught:
        load({"state_dict": state})
    assert_golden("weights/missing-tensor", str(caught.value))
    assert "conv_stem.weight" in run_hint(str(caught.value.hint))


def test_a_misshapen_tensor_that_is_needed_is_named(state: State, load: Load) -> None:
    state["blocks.0.0.conv_pw.weight"] = torch.ones(3, 3, 1, 1)
    with pytest.raises(WeightsError) as caught:
        load(state)
    assert "blocks.0.0.conv_pw.weight (shape (3, 3, 1, 1), not (16, 16, 1, 1))" in str(caught.value)
    assert "classifier" not in caught.value.message


def test_a_missing_statistic_of_a_norm_is_needed(state: State, load: Load) -> None:
    del state["bn1.running_var"]
    with pytest.raises(WeightsError, match=r"bn1\.running_var \(missing\)"):
        load(state)
    del state["bn1.num_batches_tracked"]
    with pytest.raises(WeightsError) as caught:
        load(state)
    assert "num_batches_tracked" not in caught.value.message


def test_tensors_without_a_place_are_refused_with_a_line_that_helps(
    state: State, load: Load
) -> None:
    more = {**state, "aux.weight": torch.ones(3), "blocks.0.0.gate": torch.ones(3)}
    with pytest.raises(WeightsError) as caught:
        load(more)
    assert_golden("weights/unplaced", str(caught.value))
    assert holds(load(more, ignore=["aux.", "blocks.0.0.gate"])[0], state)


def test_another_architecture_is_said_to_be_one(state: State, load: Load) -> None:
    other = {name.replace("blocks", "layers"): tensor for name, tensor in state.items()}
    with raises_golden(WeightsError, "weights/of-the-model-s") as caught:
        load(other)
    assert caught.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(state: State, load: Load, value: float) -> None:
    state["conv_stem.weight"][0] = value
    with pytest.raises(WeightsError, match=r"conv_stem\.weight"):
        load(state)


@pytest.mark.parametrize("headless", [False, True])
def test_a_negative_variance_is_named_as_the_cause(
    state: State, load: Load, headless: bool
) -> None:
    """Not what is missing or has another shape: of NaN, everything seems to be needed."""
    names = [name for name in state if name.endswith("running_var")]
    for name in names[:2]:
        state[name][0] = -1.0
    with raises_golden(WeightsError, "weights/negative-variance", match=names[1]):
        load(without_head(state) if headless else state)


def test_a_tensor_that_overflows_is_named(state: State, load: Load) -> None:
    state["bn1.bias"].fill_(3e38)
    with raises_golden(WeightsError, "weights/overflows", match=r"bn1\.bias \(3e\+38\)"):
        load(state)


def test_nan_is_named_though_the_head_is_missing(state: State, load: Load) -> None:
    state["conv_stem.weight"][0] = torch.nan
    with raises_golden(WeightsError, "weights/nan-without-head", match="NaN or infinity in conv_s"):
        load(without_head(state))


def test_a_head_that_is_not_finite_does_not_matter(state: State, load: Load) -> None:
    state["classifier.bias"][0] = torch.nan
    assert holds(load(state)[0], state)


def test_half_precision_is_said(state: State, load: Load) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    model, notes = load(half, ".safetensors")
    assert notes == ("stored as float16, computed in float32",)
    assert model.state_dict()["conv_stem.weight"].dtype == torch.float32


def test_a_file_without_a_state_dict_is_refused(load: Load) -> None:
    with raises_golden(WeightsError, "weights/no-state-dict") as caught:
        load({"epoch": 3})
    assert caught.value.hint


@pytest.mark.parametrize("deep", [False, True])
def test_a_state_dict_that_is_too_deep_or_in_a_list_is_not_looked_for(
    state: State, load: Load, deep: bool
) -> None:
    with raises_golden(WeightsError, "weights/no-state-dict"):
        load({"a": {"b": {"c": {"d": state}}}} if deep else [state, 1])


@pytest.mark.parametrize("name", ["shadow_params", "of_parts"])
def test_an_average_without_names_needs_a_choice(
    name: str, state: State, load: Load, manifests: dict[str, Manifest]
) -> None:
    model = backbone.create(manifests[SMALL])
    average = [tensor.detach() * 0.9 for tensor in model.parameters()]
    saved = {"state_dict": state, "ema": {"decay": 0.9, name: average}}
    with raises_golden(
        WeightsError, "weights/unnamed-tensors", {name: "NAME"}, match=rf"ema\.{name}"
    ):
        load(saved)
    assert holds(load(saved, state="state_dict")[0], state)
    few = {"state_dict": state, "ema": {name: average[:9]}}
    assert holds(load(few)[0], state)


@pytest.mark.parametrize("channels", [1, 6])
def test_the_hint_on_wrong_shapes_is_not_about_names(
    channels: int, state: State, load: Load
) -> None:
    state["conv_stem.weight"] = torch.ones(16, channels, 3, 3)
    with raises_golden(
        WeightsError, "weights/other-shape", {f"(16, {channels}, 3, 3)": "SHAPE"}, match="stem"
    ):
        load(state)


def test_what_the_cut_throws_away_depends_on_the_cut(
    state: State, tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    """``conv_head`` comes after the pool: pre_logits needs it, pooled does not."""
    del state["conv_head.weight"]
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    weights = FileWeights(source="file", path=path.name, sha256="0" * 64)
    for cut, width in ((Cut.POOLED, 576), (Cut.PRE_LOGITS, 1024)):
        manifest = manifests[SMALL].model_copy(
            update={"weights": weights, "backbone": BackboneCut(cut=cut, feature_dim=width)}
        )
        model = backbone.create(manifest)
        if cut is Cut.POOLED:
            assert "conv_head.weight (missing)" in load_state(model, manifest, path)[0]
            features = backbone.Backbone(model, manifest.backbone)(torch.zeros(1, 3, 64, 64))
            assert features.isfinite().all()
            continue
        with pytest.raises(WeightsError, match=r"conv_head\.weight"):
            load_state(model, manifest, path)


def run_hint(text: str) -> str:
    """Runs the command at the end of a hint; returns what it prints."""
    command = shlex.split(text[text.index(".venv/bin/python ") :])
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_hint_on_a_pickle_with_code_is_a_command_that_works(
    state: State, load: Load, tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    model = backbone.create(manifests[SMALL])
    model.load_state_dict(state)
    with pytest.raises(WeightsError) as caught:
        load({"model": model, "epoch": 3, "hyper": {"a": argparse.Action}})
    hint = str(caught.value.hint)
    (line,) = [line for line in hint.splitlines() if line.startswith("  .venv/bin/python ")]
    run_hint(line)
    converted = torch.load(tmp_path / "mine-tensors.pth", weights_only=True)
    loaded, notes = load(converted)
    assert holds(loaded, state)
    assert notes == ("state dict 'model'",)


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, b"weights")
    return content.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
NO_CHECKPOINTS = {
    "empty.pth": (b"", "empty"),
    "empty.safetensors": (b"", "empty"),
    "pointer.pth": (POINTER, "git lfs pull"),
    "pointer.safetensors": (POINTER, "git lfs pull"),
    "page.pth": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "packed.pth": (gzip.compress(b"weights" * 9), "by gzip: unpack"),
    "packed.pt": (bz2.compress(b"weights" * 9), "by bzip2: unpack"),
    "packed.bin": (lzma.compress(b"weights" * 9), "by xz: unpack"),
    "array.npz": (zipped("conv.npy"), "NumPy archive"),
    "array.npy": (b"\x93NUMPY\x01\x00", "NumPy array"),
    "folder.zip": (zipped("weights.pth"), "zip archive"),
    "keras.h5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_what_was_stored_instead_of_a_checkpoint_is_said(name: str, tmp_path: Path) -> None:
    content, words = NO_CHECKPOINTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_file(tmp_path / name)


def test_a_wrong_name_is_said(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "saved.safetensors")
    with pytest.raises(WeightsError, match=r"\.pth\b"):
        read_file(tmp_path / "saved.safetensors")
    save_file(state, tmp_path / "saved.pth")
    with pytest.raises(WeightsError, match=r"\.safetensors\b"):
        read_file(tmp_path / "saved.pth")
