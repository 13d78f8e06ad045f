from __future__ import annotations

from typing import Any

import pytest
from support.goldens import assert_golden, raises_golden
from support.records import toolchain

from builders.planning import wanted
from builders.toolchains.installed import choose_toolchain, choose_toolchains, default_archs
from zoo.client.host import local_archs
from zoo.schema.manifest import Manifest
from zoo.schema.targets import Arch, RuntimeLine, Toolchain
from zoo.util.errors import TargetError, UsageError, ZooError

RTX = toolchain("rtx", "1.7.1.116", cuda=13)
ORT = toolchain("ort", "1.32.0")


def no_gpu(command: list[str]) -> str:
    raise OSError("nvidia-smi: not found")


def h200(command: list[str]) -> str:
    return "9.0\n9.0\n"


def labels(manifest: Manifest, toolchains: dict[Arch, Toolchain], *precisions: Any) -> list[str]:
    return [e.label for e in wanted.wanted_engines(manifest, toolchains, precisions or None)]


def test_a_cpu_gets_fp32_and_int8(manifests: dict[str, Manifest]) -> None:
    assert labels(manifests["resnet50"], {Arch("cpu"): ORT}) == [
        "cpu-ort1.32-fp32",
        "cpu-ort1.32-int8",
    ]


def test_one_rtx_engine_serves_several_architectures_turing_apart(
    manifests: dict[str, Manifest],
) -> None:
    toolchains = {Arch(name): RTX for name in ("sm86", "sm75", "sm89", "sm120")}
    assert labels(manifests["resnet50"], toolchains, "fp16") == [
        "sm120+sm86+sm89-rtx1.7-fp16",
        "sm75-rtx1.7-fp16",
    ]


def test_fp16_on_the_cpu_is_refused_at_once() -> None:
    with raises_golden(TargetError, "planning/fp16-on-cpu", match="fp16"):
        wanted.check_request({Arch("cpu"): ORT.line}, ["fp16"])
    wanted.check_request({Arch("cpu"): ORT.line, Arch("sm86"): RTX.line}, ["fp16"])


def test_what_a_family_has_none_of_is_left_out_or_refused(manifests: dict[str, Manifest]) -> None:
    vit, turing = manifests["vit_base_patch16_224"], {Arch("sm75"): RTX}
    assert labels(vit, turing) == ["sm75-rtx1.7-fp16"]
    assert "sm75-rtx1.7-fp32" in labels(manifests["resnet50"], turing)
    assert labels(vit, turing, "fp32") == []
    lines = {Arch("sm75"): RTX.line}
    wanted.check_request(lines, ["fp32"])
    with raises_golden(TargetError, "planning/no-fp32-of-a-family", match="fp32.*vit.*sm75"):
        wanted.check_request(lines, ["fp32"], vit.family)


def test_trt_is_about_the_gpus_of_a_request() -> None:
    line = RuntimeLine.parse("rtx1.7")
    chosen = choose_toolchains([Arch("cpu"), Arch("sm86")], line, no_gpu)
    assert [chain.kind for chain in chosen.values()] == ["ort", "rtx"]
    with raises_golden(UsageError, "planning/rtx-for-cpu", match="GPU=cpu"):
        choose_toolchains([Arch("cpu")], line, no_gpu)


def test_the_largest_batch_keeps_tensors_below_two_to_the_31() -> None:
    b7 = 64 * 300 * 300 * 3  # tf_efficientnet_b7 at 600 px: the first expansion
    assert wanted.largest_batch(b7) == 64
    assert 64 * b7 < 2**31 <= 2 * 64 * b7
    assert wanted.largest_batch(3 * 224 * 224) >= 256
    assert wanted.largest_batch(2**40) == 1
    assert wanted.largest_batch(b7, on_cpu=True) == 4


def test_a_range_is_limited(manifests: dict[str, Manifest]) -> None:
    latency, bulk = manifests["resnet50"].batch.gpu
    assert bulk.limited(256) == bulk
    assert (bulk.limited(32).opt, bulk.limited(32).max) == (32, 32)
    assert latency.limited(256) == latency


def test_without_a_gpu_the_default_is_the_cpu() -> None:
    assert default_archs(no_gpu) == [Arch("cpu")]
    assert default_archs(h200) == [Arch("sm90")]
    assert local_archs(h200) == [Arch("sm90")]


def test_rtx_is_the_default_where_it_serves() -> None:
    assert str(choose_toolchain(Arch("sm86"), None, no_gpu).line) == "rtx1.7"
    assert choose_toolchain(Arch("cpu"), None, no_gpu).kind == "ort"


@pytest.mark.parametrize(
    ("arch", "line", "error", "choice"),
    [
        ("sm90", None, TargetError, "sm90"),
        ("sm90", "rtx1.7", TargetError, "sm90"),
        ("sm86", "rtx1.8", UsageError, "'rtx1.7'"),
        ("sm86", "ort1.32", UsageError, "TRT=ort1.32"),
        ("cpu", "rtx1.7", UsageError, "GPU=cpu"),
    ],
)
def test_what_no_backend_serves_is_refused_with_the_choices(
    arch: str, line: str | None, error: type[ZooError], choice: str
) -> None:
    parsed = RuntimeLine.parse(line) if line else None
    with pytest.raises(error, match=choice) as caught:
        choose_toolchain(Arch(arch), parsed, no_gpu)
    assert caught.value.exit_code == error.exit_code
    # The hint lists what is installed here, too.
    assert_golden(f"planning/no-backend-{arch}-{line or 'any'}", caught.value.message)
