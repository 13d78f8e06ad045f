"""What an engine's first bytes say, and the errors that a user meets before a runtime sees it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from support.goldens import raises_golden
from support.installed import installed_inputs
from support.records import toolchain

from zoo.client.host import local_archs
from zoo.runtime import open_session
from zoo.runtime.header import Header, check_arch, read_header
from zoo.util.errors import MissingPackageError, RunError


def rtx_header(
    magic: bytes = b"vtrt",
    mask: int = 0b1100,
    version: bytes = b"\x01\x07\x01\x74",
    length: int = 500,
) -> bytes:
    tail = version + b"vtrt" + struct.pack("<I", mask)
    return magic.ljust(16, b"\0") + struct.pack("<Q", length) + tail


def engine_file(folder: Path, size: int = 500, **changes: Any) -> Path:
    path = folder / "engine"
    path.write_bytes(rtx_header(**changes).ljust(size, b"\0"))
    return path


def test_a_header_is_read() -> None:
    read = read_header(rtx_header())
    assert read == Header(kind="rtx", version="1.7.1.116", archs=("sm86", "sm89"), length=500)
    read = read_header(rtx_header(magic=b"ftrt", version=b"\x08\x06\x00\x0c"))
    assert read == Header(kind="trt", version="8.6.0.12")


@pytest.mark.parametrize("data", [b"", b"vtrt", b"PK\x03\x04" * 20, rtx_header(mask=1 << 20)])
def test_what_is_no_engine_is_refused(data: bytes) -> None:
    with pytest.raises(RunError):
        read_header(data)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 400}, r"has 400 bytes instead of 500"),
        ({"magic": b"none"}, "is not a TensorRT engine"),
        (
            {"version": b"\x01\x06\x00\x01"},
            r"is a TensorRT-RTX 1\.6\.0\.1 engine .* says TensorRT-RTX 1.7",
        ),
        ({"magic": b"ftrt"}, r"is a TensorRT 1\.7\.1\.116 engine, its record says TensorRT-RTX"),
        ({"mask": 0b0010}, r"engine for sm80, its record says sm86"),
    ],
)
def test_an_engine_that_is_not_what_its_record_says_is_a_sentence(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=words) as caught:
        open_session(engine_file(tmp_path, **changes), installed_inputs("rtx", "sm86"))
    assert caught.value.hint


def test_an_engine_of_another_size_than_its_record_says_is_refused(tmp_path: Path) -> None:
    with raises_golden(RunError, "runtime/has-500-bytes-instead-of-501"):
        open_session(engine_file(tmp_path), installed_inputs("rtx", "sm86"), 501)


@pytest.mark.skipif(bool(local_archs()), reason="there is a GPU")
def test_without_a_gpu_that_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="NVIDIA") as caught:
        open_session(engine_file(tmp_path), installed_inputs("rtx", "sm86"))
    assert "nvidia-smi" in str(caught.value)


def test_another_gpu_is_named_with_the_command_that_builds_for_it() -> None:
    with raises_golden(RunError, "runtime/another-gpu", match="sm86.*sm89.*sm90") as caught:
        check_arch(installed_inputs("rtx", "sm86", "sm89"), (9, 0))
    assert "GPU=sm90" in str(caught.value)
    check_arch(installed_inputs("rtx", "sm86", "sm89"), (8, 9))


def test_another_version_and_a_missing_one_are_named() -> None:
    from zoo.runtime.tensorrt.library import import_runtime

    asked = installed_inputs("rtx", "sm86")
    other = {"toolchain": asked.toolchain.model_copy(update={"version": "1.6.0.1"})}
    with pytest.raises(RunError, match=r"TensorRT-RTX 1\.6\.0\.1.*\b1\.7\.1") as caught:
        import_runtime(asked.model_copy(update=other))
    assert "TRT=rtx1.7" in str(caught.value)
    standard = toolchain("trt", "11.4.1.2", cuda=13)
    with pytest.raises(MissingPackageError, match=r"TensorRT 11\.4\.1\.2"):
        import_runtime(asked.model_copy(update={"toolchain": standard}))
