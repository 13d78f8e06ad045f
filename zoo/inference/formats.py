"""Formats of photos that Pillow reads with another package: HEIC and JPEG XL, extra ``[heic]``."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec

PACKAGES = {".heic": "pillow_heif", ".heif": "pillow_heif", ".jxl": "pillow_jxl"}
"""The module that reads the files of a suffix."""

INSTALL = "pip install 'caft-zoo[heic]'"


_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")


def suffix_of(start: bytes) -> str | None:
    """Returns the suffix that belongs to what begins with 12 bytes, None if it is none of these."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return ".heic"
    return ".jxl" if start.startswith(_JXL_STARTS) else None


def missing_package(start: bytes) -> str | None:
    """Returns the package that would read what begins with 12 bytes, if it is not installed."""
    suffix = suffix_of(start)
    return None if suffix is None or suffix in extra_suffixes() else PACKAGES[suffix]


@cache
def extra_suffixes() -> frozenset[str]:
    """Returns the suffixes of these formats whose package is installed."""
    return frozenset(suffix for suffix, module in PACKAGES.items() if find_spec(module))


@cache
def register() -> bool:
    """Teaches Pillow the formats whose packages are installed; returns whether there are any."""
    for module in {PACKAGES[suffix] for suffix in extra_suffixes()}:
        loaded = import_module(module)
        if hasattr(loaded, "register_heif_opener"):
            loaded.register_heif_opener()
    return bool(extra_suffixes())


def accept_large_photos() -> None:
    """Has Pillow not warn of an attack by photos of 90 to 179 megapixels; it refuses larger ones.

    Memory for such photos is taken in turns (:mod:`zoo.caft.room`).
    """
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
