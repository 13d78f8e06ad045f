"""What an engine says it runs in, and what is made of it."""

from __future__ import annotations

import json
import lzma
from typing import Any

import pytest
from support.goldens import assert_golden
from support.paths import ROOT

from builders.backends.inspector import Judgement, Proof, judge, read, summarise

RESULTS = ROOT / "docs" / "results" / "h200-trt8.6"


def conv(kind: str, count: int, **changes: Any) -> dict[str, Any]:
    tensor = {"Name": "x", "Format/Datatype": f"Channel major {kind} format"}
    return {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor],
        "Outputs": [tensor],
        "ParameterType": "Convolution",
        "Weights": {
            "Type": {"FP16": "Half", "FP32": "Float", "Int8": "Int8"}[kind],
            "Count": count,
        },
        **changes,
    }


def fused() -> dict[str, Any]:
    return {
        "Name": "{ForeignNode[a...b]}",
        "LayerType": "Myelin",
        "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
        "Outputs": [],
        "TacticName": "",
    }


def verdict(
    layers: list[Any], precision: Any, parameters: int, size: int, kept: int = 0
) -> Judgement:
    return judge(summarise(json.dumps({"Layers": layers})), precision, parameters, size, kept=kept)


def test_layers_that_state_their_weights_prove_it() -> None:
    assert verdict([conv("FP16", 900), conv("FP16", 100)], "fp16", 1000, 2100).proof is Proof.PROVEN
    assert verdict([conv("FP32", 1000)], "fp32", 1000, 4100).proof is Proof.PROVEN


@pytest.mark.parametrize("named", ["fp16", "fp32"])
def test_an_engine_that_runs_in_another_precision_is_caught(named: str) -> None:
    other = {"fp16": "FP32", "fp32": "FP16"}[named]
    assert verdict([conv(other, 1000)], named, 1000, 4000).proof is Proof.CONTRADICTED


def test_an_int8_engine_may_hold_what_was_kept_higher() -> None:
    assert verdict([conv("Int8", 600), conv("FP16", 400)], "int8", 1000, 1500).proof is Proof.PROVEN
    few = verdict([conv("Int8", 100), conv("FP16", 900)], "int8", 1000, 2000)
    assert few.proof is Proof.UNPROVEN
    assert verdict([conv("FP16", 1000)], "int8", 1000, 2000).proof is Proof.CONTRADICTED


def test_an_engine_runs_in_fp32_what_is_to_stay_so() -> None:
    layers = [conv("FP16", 300), conv("FP32", 700)]
    assert verdict(layers, "fp16", 1000, 3500).proof is Proof.CONTRADICTED
    found = verdict(layers, "fp16", 1000, 3500, kept=3)
    assert found.proof is Proof.PROVEN
    assert_golden("backends/kept-fp32-in-part", found.reason)
    found = verdict([conv("FP16", 1000)], "fp16", 1000, 2100, kept=3)
    assert found.proof is Proof.CONTRADICTED
    assert_golden("backends/kept-fp32-nowhere", found.reason)
    assert verdict([conv("FP32", 1000)], "fp16", 1000, 4000, kept=3).proof is Proof.CONTRADICTED


def test_one_layer_that_is_to_stay_fp32_excuses_no_other() -> None:
    layers = [conv("FP16", 10), *(conv("FP32", 110) for _ in range(9))]
    found = verdict(layers, "fp16", 1000, 4000, kept=2)
    assert found.proof is Proof.CONTRADICTED
    assert_golden("backends/fp16-in-one-layer", found.reason)
    assert verdict(layers, "fp16", 1000, 4000, kept=8).proof is Proof.PROVEN


def test_what_is_to_stay_fp32_may_be_in_layers_that_do_not_say() -> None:
    layers = [conv("FP16", 300), fused()]
    assert verdict(layers, "fp16", 1000, 3000, kept=3).proof is not Proof.CONTRADICTED
    layers = [conv("FP16", 100), conv("FP32", 100), fused()]
    assert verdict(layers, "fp16", 1000, 9000, kept=3).proof is not Proof.PROVEN  # most do not say


def test_weights_are_counted_once_in_however_many_profiles() -> None:
    other = conv("FP16", 500, Name="conv [profile 1]")
    assert verdict([conv("FP16", 500), other], "fp16", 1000, 9000).proof is not Proof.PROVEN
    assert verdict([conv("FP16", 900), {**other, "Weights": conv("FP16", 900)["Weights"]}],
                   "fp16", 1000, 9000).proof is Proof.PROVEN  # fmt: skip


def test_the_size_of_the_plan_proves_nothing_beside_layers_of_another_precision() -> None:
    layers = [conv("FP16", 600), conv("FP32", 400), fused()]
    assert verdict(layers, "fp16", 1_000_000, 2_050_000).proof is not Proof.PROVEN


def test_fused_layers_are_judged_by_the_size_of_the_plan() -> None:
    assert verdict([fused()], "fp16", 1_000_000, 2_050_000).proof is Proof.PROVEN
    assert verdict([fused()], "fp32", 1_000_000, 4_100_000).proof is Proof.PROVEN
    found = verdict([fused()], "fp16", 1_000_000, 4_100_000)
    assert found.proof is Proof.UNPROVEN
    assert "4.10" in found.reason
    assert_golden("backends/size-of-the-plan", found.reason)


def test_what_says_nothing_proves_nothing() -> None:
    assert verdict(["only a name"], "fp16", 1000, 2000).proof is not Proof.PROVEN
    assert verdict([conv("FP16", 100)], "fp16", 1000, 9000).proof is not Proof.PROVEN


def test_a_summary_counts_layers_weights_and_tensors() -> None:
    found = summarise(json.dumps({"Layers": [conv("FP16", 10), fused(), "name"]}))
    assert found.model_dump(mode="json") == {
        "profiles": 1,
        "layers": {"CaskConvolution": 1, "Myelin": 1},
        "weights": {"fp16": 10},
        "weighted": {"fp16": 1},
        "tensors": {"fp16": 1, "fp32": 1},
        "silent": ["{ForeignNode[a...b]}"],
    }


@pytest.mark.parametrize(
    ("engine", "parameters", "proven"),
    [
        ("resnet50-fp16", 23_481_472, True),
        ("resnet50-fp32", 23_481_472, True),
        ("vgg16_bn-fp16", 14_714_688, True),
        ("vgg16_bn-fp32", 14_714_688, True),
        ("vit_base_patch16_224-fp16", 85_684_224, False),  # one fused node, in two profiles
    ],
)
def test_what_tensorrt_8_6_said_on_an_h200_is_read(
    engine: str, parameters: int, proven: bool
) -> None:
    folder = RESULTS / engine
    record = json.loads((folder / "record.json").read_text())
    summary = summarise(lzma.decompress((folder / "inspector.json.xz").read_bytes()).decode())
    assert summary.profiles == 2
    assert bool(summary.silent) is not proven
    verdict = judge(summary, record["inputs"]["precision"], parameters, record["engine"]["size"])
    assert (verdict.proof is Proof.PROVEN) is proven, verdict.reason
    assert (record["precision_status"] == "proven") is proven


def test_bare_control_characters_of_8_6_are_read() -> None:
    assert read('{"Layers": [], "Metadata": "a\\x1fb"}'.replace("\\x1f", "\x1f"))["Layers"] == []
