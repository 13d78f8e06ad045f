"""Reads files of weights without running any code that they contain."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

from zoo.util.errors import WeightsError


def read_file(path: Path, suffix: str | None = None) -> object:
    """Reads safetensors, or a pickle that contains only tensors and plain values.

    Args:
        path: The file.
        suffix: The file name suffix, for a file whose name has none.

    Raises:
        WeightsError: The file is damaged, or a pickle that contains code.
    """
    import argparse
    import pathlib
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    plain: list[Any] = [argparse.Namespace, pathlib.PosixPath]  # training options; they run no code
    try:
        if (suffix or path.suffix) == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(plain):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError,
        AttributeError, TypeError,
    ) as error:  # fmt: skip
        cause = _what_instead(path, suffix or path.suffix) or _cause(path, error)
        raise WeightsError(
            f"{path}: not a checkpoint that can be read safely: {cause}",
            hint=_how_to_convert(path)
            if _CODE in cause
            else "it is damaged or in another format; safetensors and what torch.save writes of "
            "tensors are read",
        ) from error


_CODE = "which is more than data"
_PICKLE = b"\x80"  # how pickles begin
_BEGINNINGS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file: git lfs pull fetches it",
    b"<!doctype html": "it is a web page, not the file that was asked for",
    b"<html": "it is a web page, not the file that was asked for",
    b"GGUF": "it is a GGUF file",
    b"\x1f\x8b": "it is compressed by gzip: unpack it first",
    b"BZh": "it is compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "it is compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd: unpack it first",
    b"7z\xbc\xaf": "it is a 7-Zip archive: unpack it first",
    b"\x93NUMPY": "it is a NumPy array (.npy)",
    b"\x89HDF": "it is an HDF5 file, as Keras writes them",
}
_OTHERS = {".safetensors": (b"PK", _PICKLE)}  # what torch.save writes, zipped or not


def _what_instead(path: Path, suffix: str) -> str | None:
    """Returns what a file is that is no checkpoint; None if its beginning does not say."""
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "it is empty"
    for beginning, what in _BEGINNINGS.items():
        if start.lower().startswith(beginning.lower()):
            return what
    if start.startswith(_OTHERS.get(suffix, ())):
        return "torch.save wrote it, but its name ends in .safetensors: rename it to .pth"
    if suffix != ".safetensors" and start[8:9] == b"{":  # a header's length precedes the header
        return "it is safetensors, but its name says otherwise: rename it to .safetensors"
    return _zip_of_others(path) if start.startswith(b"PK") else None


def _zip_of_others(path: Path) -> str | None:
    """Returns what a zip file is that torch.save did not write; None if it may have written it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    if any(name.endswith(".npy") for name in names):
        return "it is a NumPy archive (.npz)"
    return "it is a zip archive that torch.save did not write: unpack it first"


def _cause(path: Path, error: Exception) -> str:
    """Returns what torch or safetensors says, without torch's advice to run the file's code."""
    text = " ".join(str(error).split())
    if "TorchScript" in text:
        return f"it contains TorchScript, {_CODE}"
    if code := re.search(r"GLOBAL (\S+)", text):
        return f"it contains {code[1]}, {_CODE}"
    if operand := re.search(r"Unsupported operand \d+", text):
        with path.open("rb") as file:
            what = f"a pickle, {_CODE}" if file.read(1) == _PICKLE else "something else"
        return f"it contains {what}: {operand[0]}"
    return text.partition("This is an internal miniz error")[0].strip()


def _how_to_convert(path: Path) -> str:
    """Returns a command that writes the tensors of a checkpoint without anything else."""
    target = path.with_name(f"{path.stem}-tensors.pth")
    code = (
        "import torch; from builders.export.backbone import import_timm; import_timm(); "
        "T = torch.Tensor; "
        f'c = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        'c = c.state_dict() if hasattr(c, "state_dict") else c; '
        'c = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in c.items()}; '
        "c = {k: v for k, v in c.items() if isinstance(v, T) or isinstance(v, dict) "
        "and all(isinstance(t, T) for t in v.values())}; "
        f"torch.save(c, {json.dumps(str(target))})"
    )
    return (
        "only safetensors and pickles that contain nothing but tensors and plain values are read; "
        "if you trust where it is from, this writes its tensors alone, but runs the code that it "
        f"contains:\n  .venv/bin/python -c {shlex.quote(code)}\n"
        f"  then state {target.name} in the manifest, as path with its sha256"
    )
