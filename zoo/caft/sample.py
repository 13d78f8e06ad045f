"""Samples: the images of a data set by name and label, each with a function that reads it.

Every source (:mod:`zoo.caft.sources`, :mod:`zoo.caft.tars`, :mod:`zoo.caft.datasets`) yields them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from zoo.inference.formats import INSTALL, PACKAGES, extra_suffixes, missing_package, suffix_of

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    | {".avif", ".jp2", ".j2k"}
)


def is_image_suffix(suffix: str) -> bool:
    """Whether files with a suffix, in lower case, are images that can be read here."""
    return suffix in SUFFIXES or suffix in extra_suffixes()


def reason_not_read(suffix: str, start: bytes = b"") -> str:
    """Returns why files with a suffix, or that begin with 12 bytes, are left out."""
    package = PACKAGES.get(suffix) or missing_package(start)
    if package is not None:
        return f"because {package} is not installed ({INSTALL})"
    return "because they are not supported images"


_MAGIC = (
    (0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (0, b"GIF8"), (8, b"WEBP"),
    (0, b"II*\0"), (0, b"MM\0*"), (4, b"ftypavif"), (4, b"jP  \r\n\x87\n"),
    (0, b"\xff\x4f\xff\x51"),
)  # fmt: skip


def looks_like_image(start: bytes) -> bool:
    """Whether a file that starts with these bytes is an image, whatever its name."""
    plain = any(start[at:].startswith(magic) for at, magic in _MAGIC)
    return plain or suffix_of(start) in extra_suffixes()


@dataclass(kw_only=True, slots=True)  # not frozen: a frozen one takes three times as long to make
class Sample:
    """One image of a data set; nobody changes it.

    Attributes:
        name: Its displayed name: a path in the folder, a key in the tar.
        label: The name of its class, None if it has none.
        read: Returns the image: the bytes of its file, a Pillow image, uint8 pixels or
            preprocessed input; or an :class:`Item` if the label is loaded with the image. Called
            in another thread, and only once unless ``rereadable``.
        key: Tells it from samples of the same name; the name by default.
        rereadable: Whether ``read`` may be called again, at little cost.
    """

    name: str
    label: str | None
    read: Callable[[], Any]
    key: str = ""
    rereadable: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """An image whose label is only known once the image has been loaded.

    Attributes:
        image: What :attr:`Sample.read` returns otherwise.
        label: The name of its class, None if it has none.
    """

    image: Any
    label: str | None


Source = Iterable[Sample]
"""The samples of a data set.

It yields the same samples in the same order each time, reads no image before :attr:`Sample.read` is
called, and never holds all samples in memory.
"""
