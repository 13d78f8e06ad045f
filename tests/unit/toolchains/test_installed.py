"""Toolchains: what builds here, and what is said of what does not. Nothing native, no GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.records import toolchain

from builders.toolchains import installed
from builders.toolchains.installed import choose_toolchain, choose_toolchains
from zoo.schema.targets import Arch, Runtime, RuntimeLine, Toolchain
from zoo.util.errors import TargetError, UsageError, ZooError

Run = Callable[[list[str]], str]


ORT = toolchain("ort", "1.32.0")
RTX = toolchain("rtx", "1.7.1.116", cuda=13)
TRT11 = toolchain("trt", "11.4.0.106", cuda=13)
TRT10 = toolchain("trt", "10.13.3.9", cuda=13)
TRT8 = toolchain("trt", "8.6.0", cuda=12)


def no_gpu(command: list[str]) -> str:
    raise FileNotFoundError("nvidia-smi")


def gpu(capability: str, driver: str = "580.95.05") -> Run:
    """A machine with one GPU, as ``nvidia-smi`` tells of it."""
    values = {"name": "A GPU", "compute_cap": capability, "driver_version": driver}

    def run(command: list[str]) -> str:
        [query] = [word for word in command if word.startswith("--query-gpu=")]
        fields = query.partition("=")[2].split(",")
        return ", ".join(values.get(field, "1024") for field in fields) + "\n"

    return run


def choose(arch: str, line: str | None, run: Run, *have: Toolchain) -> Toolchain:
    asked = RuntimeLine.parse(line) if line else None
    return choose_toolchain(Arch(arch), asked, run, {one.kind: one for one in have}.get)


def refused(arch: str, line: str | None, run: Run, *have: Toolchain) -> ZooError:
    with pytest.raises(ZooError) as caught:
        choose(arch, line, run, *have)
    return caught.value


@pytest.mark.parametrize(
    ("arch", "line", "run", "have", "chosen"),
    [
        ("cpu", None, no_gpu, [ORT, RTX], ORT),
        ("sm86", None, no_gpu, [RTX, TRT11], RTX),
        ("sm86", None, gpu("9.0"), [RTX, TRT11], RTX),
        ("sm86", None, gpu("8.6"), [RTX, TRT11], TRT11),
        ("sm86", "rtx1.7", gpu("8.6"), [RTX, TRT11], RTX),
        ("sm90", None, gpu("9.0"), [RTX, TRT10], TRT10),
        ("sm90", "11.4", gpu("9.0"), [TRT11], TRT11),
        ("sm90", "8.6", gpu("9.0", "525.60.13"), [TRT8], TRT8),
        ("sm120", None, gpu("12.0"), [RTX, TRT8], RTX),
        ("sm86", None, gpu("8.6", "535.54"), [RTX, TRT11], RTX),
        ("sm86", "11.4", gpu("8.6", "[N/A]"), [TRT11], TRT11),
        ("sm86", "rtx1.7", gpu("8.6", "470.57"), [RTX], RTX),
    ],
    ids=lambda value: getattr(value, "version", None),
)
def test_what_builds_here(
    arch: str, line: str | None, run: Run, have: list[Toolchain], chosen: Toolchain
) -> None:
    assert choose(arch, line, run, *have) == chosen


def test_tensorrt_builds_on_the_gpu_itself() -> None:
    error = refused("sm86", "11.4", no_gpu, RTX, TRT11)
    assert isinstance(error, TargetError)
    assert error.message.startswith(
        "TensorRT 11.4 builds an engine only on the GPU that will run it"
    )
    assert "no GPU (nvidia-smi is missing or finds no driver)" in error.message
    assert "a machine with an sm86 GPU" in str(error.hint)
    assert str(error.hint).endswith("TRT= that works here: rtx1.7")


def test_another_gpu_is_named() -> None:
    error = refused("sm86", "11.4", gpu("9.0"), TRT11)
    assert "this machine has sm90, not sm86" in error.message
    assert str(error.hint).endswith("TRT= that works here: none")


def test_the_package_that_is_missing_is_named() -> None:
    error = refused("sm86", "11.4", gpu("8.6"), RTX)
    assert error.message == "TensorRT 11.4 is not installed"
    assert "pip install 'tensorrt-cu13==11.4.*'" in str(error.hint)
    assert str(error.hint).endswith("TRT= that works here: rtx1.7")
    old = refused("sm86", "8.6", gpu("8.6"), RTX)
    assert "pip install tensorrt==8.6.0 (the PyPI wheel 8.6.0: CPython 3.10" in str(old.hint)
    rtx = refused("sm86", "rtx1.7", no_gpu)
    assert rtx.message == "TensorRT-RTX 1.7 is not installed"
    assert "tensorrt-rtx-cu13" in str(rtx.hint)


def test_another_version_is_named() -> None:
    error = refused("sm90", "11.4", gpu("9.0"), RTX, TRT10)
    assert error.message.startswith("TensorRT 10.13.3.9 is installed, not 11.4")
    assert "pip install 'tensorrt-cu13==11.4.*'" in str(error.hint)
    assert str(error.hint).endswith("TRT= that works here: 10.13")


@pytest.mark.parametrize(
    ("found", "line", "driver", "needed"),
    [
        (TRT11, "11.4", "575.51.03", 580),
        (toolchain("trt", "11.4.0.106", cuda=12), "11.4", "525.60", 535),
        (TRT8, "8.6", "470.57", 525),
    ],
)
def test_an_old_driver_is_named(found: Toolchain, line: str, driver: str, needed: int) -> None:
    error = refused("sm86", line, gpu("8.6", driver), found)
    assert f"for CUDA {found.cuda} needs driver {needed} or later" in error.message
    assert f"this machine has {driver}" in error.message
    assert f"install the NVIDIA driver {needed}" in str(error.hint)
    assert choose("sm86", line, gpu("8.6", f"{needed}.10"), found) == found


def test_where_nothing_builds_each_runtime_says_why() -> None:
    error = refused("sm90", None, no_gpu, RTX)
    assert isinstance(error, TargetError)
    assert error.message.startswith("this machine can't build for sm90: ")
    assert "on the GPU that will run it; this machine has no GPU" in error.message
    assert "rtx1.7 does not support sm90: TensorRT-RTX is for RTX GPUs" in error.message
    assert "lines that serve sm90: 11.4, 10.16, 10.13, 8.6;" in str(error.hint)


def test_the_default_names_what_to_install() -> None:
    error = refused("sm90", None, gpu("9.0"), RTX)
    assert "TensorRT 11.4 is not installed" in error.message
    assert str(error.hint).startswith("pip install 'tensorrt-cu13==11.4.*'; ")
    error = refused("sm86", None, no_gpu)
    assert "TensorRT-RTX 1.7 is not installed" in error.message
    assert "or pip install 'tensorrt-rtx-cu13" in str(error.hint)


def test_an_installed_tensorrt_that_the_table_does_not_know_is_named() -> None:
    error = refused("sm90", None, gpu("9.0"), toolchain("trt", "9.3.0.1", cuda=12))
    assert "TensorRT 9.3 is not in the targets table" in error.message


@pytest.mark.parametrize("run", [no_gpu, gpu("12.0")])
def test_what_a_line_does_not_serve_is_refused_whatever_the_machine(run: Run) -> None:
    error = refused("sm120", "8.6", run, RTX, TRT8)
    assert "trt8.6 does not support sm120: it is older than Blackwell" in error.message
    assert "lines that serve sm120: rtx1.7, 11.4, 10.16, 10.13;" in str(error.hint)


@pytest.mark.parametrize(
    ("arch", "line", "text"),
    [
        ("sm86", "11.5", "no backend for TRT=11.5. Perhaps you meant '11.4'?"),
        ("sm86", "ort1.32", "no backend for TRT=ort1.32. It is for GPU=cpu."),
        ("cpu", "11.4", "TRT=11.4 is no runtime for GPU=cpu"),
    ],
)
def test_a_line_that_is_none_is_a_usage_error(arch: str, line: str, text: str) -> None:
    error = refused(arch, line, no_gpu, ORT, RTX)
    assert isinstance(error, UsageError)
    assert error.message == text
    assert error.hint


def test_an_onnxruntime_that_the_table_does_not_know_is_named() -> None:
    error = refused("cpu", None, no_gpu, toolchain("ort", "1.30.1"))
    assert "the targets table has ort1.32, not ort1.30" in error.message
    assert "not installed" in refused("cpu", None, no_gpu).message


def test_any_runtime_of_the_table_may_serve_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Runtime.ORT, Runtime.RTX]
    monkeypatch.setattr(installed, "cpu_runtimes", lambda: both)
    old = toolchain("ort", "1.30.1")
    assert choose("cpu", None, no_gpu, RTX) == RTX
    assert choose("cpu", None, no_gpu, RTX, ORT) == ORT
    assert choose("cpu", "rtx1.7", no_gpu, ORT, RTX) == RTX
    assert choose("cpu", None, no_gpu, old, RTX) == RTX  # the table does not list the other
    assert refused("cpu", "rtx1.7", no_gpu, ORT).exit_code == UsageError.exit_code


def test_trt_is_about_the_gpus_among_the_targets() -> None:
    find = {"ort": ORT, "trt": TRT11}.get
    archs = [Arch("cpu"), Arch("sm86")]
    line = RuntimeLine.parse("11.4")
    assert choose_toolchains(archs, line, gpu("8.6"), find) == dict(
        zip(archs, (ORT, TRT11), strict=True)
    )
