"""GPUs by their product names: a table of products and their architectures."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, TypeAdapter

from zoo.schema.targets import Arch, known_archs
from zoo.schema.targets_table import target_table
from zoo.util.errors import UsageError
from zoo.util.names import perhaps
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


def read_archs(text: str) -> list[Arch]:
    """Returns the architectures that a list stands for.

    Args:
        text: Names with commas between them; also with spaces, as far as no name has any.

    Raises:
        UsageError: A name is neither an architecture nor a product.
    """
    names: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        words = part.split()
        names += words if _named(part) is None and any(map(_named, words)) else [part]
    return [read_arch(name) for name in names]


def read_arch(name: str) -> Arch:
    """Returns the architecture that a name stands for.

    Args:
        name: An architecture, ``sm86``, or a product in any case and with any separators, also
            as ``nvidia-smi`` prints it: ``rtx3080``, ``NVIDIA A100-SXM4-80GB``.

    Raises:
        UsageError: It is neither.
    """
    arch = _named(name)
    if arch is not None:
        return Arch.parse(arch)
    known = [arch_words(arch) for arch in known_archs()]
    raise UsageError(
        f"unknown GPU '{name}'.{perhaps(_letters(name), [*_products(), *known_archs()])}",
        hint=f"give a product such as rtx3080, or an architecture: {', '.join(known)}; "
        "nvidia-smi --query-gpu=compute_cap --format=csv prints 8.6 on a GPU of sm86",
    )


def _named(name: str) -> str | None:
    return name if name in known_archs() else _products().get(_letters(name))


@cache
def _products() -> dict[str, str]:
    return {_letters(one): arch for arch, gpu in gpu_table().items() for one in gpu.products}


def arch_words(arch: str) -> str:
    """Returns an architecture with its best-known products: ``sm86 (RTX 30, A10, A40)``."""
    products = known_as(arch)
    return f"{arch} ({products})" if products else arch


# What nvidia-smi and boxes print around a product's name, as templates/search.js leaves it out.
_EXTRA = re.compile(
    r"\b(nvidia|geforce|tesla|super|laptop|gpu|generation|max-?q|(workstation|server) edition|pcie"
    r"|nvl|sxm\d?|hbm\d?e?|\d+ ?gb)\b"
)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", _EXTRA.sub(" ", name.lower()))
