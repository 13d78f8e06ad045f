"""GPUs by their product names: a table of products and their architectures."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, TypeAdapter

from zoo.schema.targets_table import target_table
from zoo.util.toml import toml


class Products(BaseModel):
    """The products that have one architecture.

    Attributes:
        products: Their names, without the vendor's.
        source: URL of the page that lists them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    products: tuple[str, ...]
    source: str


@cache
def gpu_table() -> dict[str, Products]:
    """Returns ``gpus.toml``: architecture to its products."""
    text = files("zoo.catalog").joinpath("gpus.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Products]).validate_python(toml.loads(text))


def products_of(arch: str) -> tuple[str, ...]:
    """Returns an architecture's products; none for the CPU and for unknown architectures."""
    known = gpu_table().get(arch)
    return known.products if known else ()


def slug(product: str) -> str:
    """Returns a product's name in a URL: ``rtx-3080``."""
    return re.sub(r"[^a-z0-9]+", "-", product.lower()).strip("-")


def known_as(arch: str) -> str:
    """Returns an architecture's best-known products: ``RTX 30, A10, A40``; may be empty."""
    known = target_table().arch.get(arch)
    return known.name.partition("(")[2].rstrip(")") if known else ""


def arch_name(arch: str) -> str:
    """Returns an architecture's name, ``Ampere (RTX 30, A10, A40)``; its label if unknown."""
    known = target_table().arch.get(arch)
    return known.name if known else arch


def arch_named(name: str) -> str:
    """Returns the architecture of a product, ``sm86`` for ``rtx3080`` or ``RTX 3080``.

    Args:
        name: A product's name, in any case and with any separators; or an architecture.

    Returns:
        The architecture, or ``name`` itself if no product is called that.
    """
    wanted = _letters(name).removeprefix("nvidia").removeprefix("geforce")
    for arch, known in gpu_table().items():
        if wanted in map(_letters, known.products):
            return arch
    return name


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
