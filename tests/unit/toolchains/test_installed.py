"""Toolchains: what builds here, and what is said of what does not. Nothing native, no GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.goldens import raises_golden
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


def refused(
    kind: type[ZooError], name: str, arch: str, line: str | None, run: Run, *have: Toolchain
) -> None:
    """Expects that an error, whose message is a golden, says why nothing builds here."""
    with raises_golden(kind, f"toolchains/{name}"):
        choose(arch, line, run, *have)


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


@pytest.mark.parametrize(
    ("name", "arch", "line", "run", "have"),
    [
        ("no-gpu", "sm86", "11.4", no_gpu, [RTX, TRT11]),
        ("another-gpu", "sm86", "11.4", gpu("9.0"), [TRT11]),
        ("no-tensorrt", "sm86", "11.4", gpu("8.6"), [RTX]),
        ("no-old-tensorrt", "sm86", "8.6", gpu("8.6"), [RTX]),
        ("no-rtx", "sm86", "rtx1.7", no_gpu, []),
        ("another-version", "sm90", "11.4", gpu("9.0"), [RTX, TRT10]),
        ("nothing-builds", "sm90", None, no_gpu, [RTX]),
        ("no-default-for-hopper", "sm90", None, gpu("9.0"), [RTX]),
        ("no-default-for-ampere", "sm86", None, no_gpu, []),
        ("unlisted-tensorrt", "sm90", None, gpu("9.0"), [toolchain("trt", "9.3.0.1", cuda=12)]),
        ("unlisted-onnxruntime", "cpu", None, no_gpu, [toolchain("ort", "1.30.1")]),
        ("no-onnxruntime", "cpu", None, no_gpu, []),
    ],
)
def test_a_target_that_can_not_be_built_here_is_refused_with_a_remedy(
    name: str, arch: str, line: str | None, run: Run, have: list[Toolchain]
) -> None:
    refused(TargetError, name, arch, line, run, *have)


@pytest.mark.parametrize(
    ("found", "line", "driver", "needed"),
    [
        (TRT11, "11.4", "575.51.03", 580),
        (toolchain("trt", "11.4.0.106", cuda=12), "11.4", "525.60", 535),
        (TRT8, "8.6", "470.57", 525),
    ],
)
def test_an_old_driver_is_refused(found: Toolchain, line: str, driver: str, needed: int) -> None:
    refused(TargetError, f"driver-{needed}", "sm86", line, gpu("8.6", driver), found)
    assert choose("sm86", line, gpu("8.6", f"{needed}.10"), found) == found


@pytest.mark.parametrize("run", [no_gpu, gpu("12.0")])
def test_what_a_line_does_not_serve_is_refused_whatever_the_machine(run: Run) -> None:
    refused(TargetError, "not-served", "sm120", "8.6", run, RTX, TRT8)


@pytest.mark.parametrize(
    ("name", "arch", "line"),
    [
        ("near-line", "sm86", "11.5"),
        ("line-of-cpu", "sm86", "ort1.32"),
        ("line-of-gpu", "cpu", "11.4"),
    ],
)
def test_a_line_that_is_none_is_a_usage_error(name: str, arch: str, line: str) -> None:
    refused(UsageError, name, arch, line, no_gpu, ORT, RTX)


def test_any_runtime_of_the_table_may_serve_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Runtime.ORT, Runtime.RTX]
    monkeypatch.setattr(installed, "cpu_runtimes", lambda: both)
    old = toolchain("ort", "1.30.1")
    assert choose("cpu", None, no_gpu, RTX) == RTX
    assert choose("cpu", None, no_gpu, RTX, ORT) == ORT
    assert choose("cpu", "rtx1.7", no_gpu, ORT, RTX) == RTX
    assert choose("cpu", None, no_gpu, old, RTX) == RTX  # the table does not list the other
    refused(TargetError, "line-not-installed-for-cpu", "cpu", "rtx1.7", no_gpu, ORT)


def test_trt_is_about_the_gpus_among_the_targets() -> None:
    find = {"ort": ORT, "trt": TRT11}.get
    archs = [Arch("cpu"), Arch("sm86")]
    line = RuntimeLine.parse("11.4")
    assert choose_toolchains(archs, line, gpu("8.6"), find) == dict(
        zip(archs, (ORT, TRT11), strict=True)
    )
