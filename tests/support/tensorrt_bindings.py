"""The real Python bindings of standard TensorRT, to ask them what they have.

PyPI has the bindings as wheels of 1 MB, without the libraries. Behind stub libraries, which only
have the symbols that the bindings want, they import: every class, enum and signature is the real
one. Nothing can be built, loaded or run.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from support.paths import ROOT
from support.skips import NO_WHEEL

PACKAGE = "tensorrt-cu13-bindings"
CACHE = ROOT / ".pytest_cache" / "d" / "tensorrt-bindings"

WHEELS: dict[str, dict[str, str]] = {
    "10.13.3.9": {
        "cp311": "f40c9e488af125b232fcca85ac4b21e090d7b1be55c3062eeaf48c2a9a9ed808",
        "cp312": "9e3adb281af85508518b90979d0bf3a1704a40c3165a99d5b27e2cfee72f1b14",
        "cp313": "c0530b410c4fa6086dd908d9390959c61c0437efd6d3ebc24cf563dcdd9f10f2",
    },
    "10.16.1.11": {
        "cp311": "f986d47980d042cc126506a9b84586e55ad13737a7a46826fe45457c04d66294",
        "cp312": "2fb87ac24a5e5f42e43f283c16d1b661dc72ef18568fd847ce2080b7db9ca232",
        "cp313": "da17c222ba99f46e77e1dab568cd17c4652b0432d4fae074e4c79285356aa0ac",
    },
    "11.4.0.106": {
        "cp311": "d072ac2a095e2be749fefc847adfb25d5ebe70303401df62ede8fe67a59f27fc",
        "cp312": "5fc7a6c412881f7212030893bd5531b1a0ff415c72c7678dfe4ead7a7765b38d",
        "cp313": "bac9a362c9189b5f5dd0444213913846e4b46003237834958e890eff57d86ed5",
        "cp314": "233f5f02af7940b7cf15a5b526fc16b203d93181473a58588937bf401ca1d293",
    },
}
"""Version to Python to SHA-256 of the wheel for Linux on x86_64."""


def run_in(version: str, code: str) -> str:
    """Runs Python code that may ``import tensorrt``, and our own modules.

    Args:
        version: Of the bindings, a key of :data:`WHEELS`.
        code: What to run, in a process of its own.

    Returns:
        What it printed.

    Raises:
        AssertionError: It failed; the text is its standard error.
    """
    folder = prepare(version)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{folder / 'python'}{os.pathsep}{ROOT}",
            "LD_LIBRARY_PATH": f"{folder / 'lib'}{os.pathsep}{os.getenv('LD_LIBRARY_PATH', '')}",
            "POLYGRAPHY_USE_TENSORRT_RTX": "0",
        },
    )
    assert done.returncode == 0, f"TensorRT {version}: {done.stderr}"
    return done.stdout


class Unavailable(Exception):
    """What the bindings need can't be had here; the text says what."""


def prepare(version: str) -> Path:
    """Returns the folder of a version: its bindings in ``python``, the stubs in ``lib``.

    Made once and kept; skips the test where something that this needs is missing.
    """
    made = _prepared(version)
    if isinstance(made, Unavailable):
        pytest.skip(str(made))
    return made


@functools.cache  # what can't be had is not asked for again by every test
def _prepared(version: str) -> Path | Unavailable:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    digest = WHEELS[version].get(python)
    if digest is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Unavailable(f"{NO_WHEEL} {PACKAGE} {version} for {python} on {platform.machine()}")
    folder = CACHE / f"{version}-{python}"
    if folder.is_dir():
        return folder
    if missing := [tool for tool in ("gcc", "nm") if not shutil.which(tool)]:
        return Unavailable(f"stub libraries need {' and '.join(missing)}: apt-get install gcc")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        made = Path(scratch) / "made"
        try:
            wheel = _download(version, digest, Path(scratch))
        except Unavailable as error:
            return error
        _unpack(wheel, made / "python")
        _make_stubs(made / "python" / "tensorrt_bindings" / "tensorrt.so", version, made / "lib")
        try:
            made.rename(folder)
        except OSError:  # another test run was faster
            assert folder.is_dir()
    return folder


def _download(version: str, digest: str, folder: Path) -> Path:
    """Fetches a wheel through pip, which checks its hash.

    Raises:
        Unavailable: It can't be had. Another hash than the pinned one is a failed assertion.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE}=={version} --hash=sha256:{digest}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--retries", "1", "--no-deps", "--only-binary", ":all:", "--require-hashes",
         "--requirement", str(wanted), "--dest", str(folder)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    said = (done.stdout + done.stderr).strip()
    assert "DO NOT MATCH THE HASHES" not in said, said
    if done.returncode != 0:
        last = (said.splitlines() or ["pip says nothing"])[-1]
        raise Unavailable(f"pip can't fetch {PACKAGE} {version} (is there network?): {last}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpacks a wheel, and adds the package ``tensorrt``, which is apart from the bindings."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    package = folder / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )


def _make_stubs(bindings: Path, version: str, folder: Path) -> None:
    """Compiles the libraries that the bindings are linked with, empty functions in them."""
    folder.mkdir()
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(bindings)], capture_output=True, text=True, check=True
    )
    symbols = [line.split() for line in listed.stdout.splitlines()]
    # What is versioned is libc's; the interpreter has Py..., libc or libdl has dl...
    wanted = [
        name
        for kind, name in symbols
        if kind == "U" and "@" not in name and not name.startswith(("Py", "_Py", "dl"))
    ]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    major = version.partition(".")[0]
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        soname = f"{name}.so.{major}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{soname}",
             "-o", str(folder / soname), str(source)],
            check=True,
        )  # fmt: skip
