"""Images of containers and the digests that pin their bases.

``docker/bake.json`` is generated from the targets table and ``docker/images.toml``. If the table
names no container for a line, its builder is Python's image plus the line's pip packages: no
document lists which tag of the vendor's image has which TensorRT.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.schema.targets import RuntimeLine, on_gpu
from zoo.schema.targets_table import target_table
from zoo.util.errors import UsageError
from zoo.util.files import write_whole
from zoo.util.loading import read_toml
from zoo.util.names import perhaps

UNLOCKED = "unlocked"
PYTHON = "docker.io/library/python:3.12-slim-bookworm"
IMAGES, BAKE = Path("docker/images.toml"), Path("docker/bake.json")
EXPORT = "export"

_NAME = "caft-zoo"
NOT_MADE = {"trt8.6": "its wheel needs Python 3.10 or older and its own cuBLAS and cuDNN; use "
             "BUILDER_PYTHON= with a Python that has it"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that the farm runs.

    Attributes:
        name: ``export``, or the line that it builds for, ``trt11.4``.
        base: Tag of its base image.
        runtime: Requirement that pip installs; empty if the base has the runtime.
    """

    name: str
    base: str
    runtime: str = ""

    @property
    def tag(self) -> str:
        """Its tag."""
        return f"{_NAME}/export:latest" if self.name == EXPORT else f"{_NAME}/builder:{self.name}"

    @property
    def target(self) -> str:
        """Its name in the bake file, which allows no dots."""
        return EXPORT if self.name == EXPORT else f"builder-{self.name.replace('.', '_')}"


def images() -> dict[str, Image]:
    """Returns every image by name: one that exports, and a builder for each GPU line."""
    images = {EXPORT: Image(name=EXPORT, base=PYTHON)}
    for name, line in target_table().line.items():
        if not on_gpu(RuntimeLine.parse(name).kind) or name in NOT_MADE:
            continue
        if line.container in ("none", UNLOCKED):
            images[name] = Image(name=name, base=PYTHON, runtime=_requirement(line.install))
        else:
            images[name] = Image(name=name, base=line.container)
    return images


def image_of(line: str) -> Image:
    """Returns the image of a line; for an empty line, the one that exports.

    Raises:
        UsageError: The line has no image.
    """
    known = images()
    if not line:
        return known[EXPORT]
    for name in (line, f"trt{line}"):
        if name in known:
            return known[name]
        if name in NOT_MADE:
            raise UsageError(f"there is no image for TRT={line}: {NOT_MADE[name]}")
    names = [name.removeprefix("trt") for name in known if name != EXPORT]
    raise UsageError(
        f"no image for TRT={line}.{perhaps(line, names)}", hint=f"images: {', '.join(names)}"
    )


def read_digests(path: Path) -> dict[str, str]:
    """Returns the digests of base images; ``unlocked`` for those not looked up yet.

    Raises:
        UsageError: The file can't be read or has an invalid digest.
    """
    try:
        table: dict[str, Any] = read_toml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    digests = {}
    for name, entry in table.items():
        if not isinstance(entry, dict) or "digest" not in entry:
            raise UsageError(
                f"{path}: {name} has no digest", hint=f'["{name}"] and digest = "{UNLOCKED}"'
            )
        digests[name] = str(entry["digest"])
    for name, digest in digests.items():
        if digest != UNLOCKED and not is_digest(digest):
            raise UsageError(
                f"{path}: {name}: '{digest}' is not a digest",
                hint=f"sha256: and 64 hexadecimal digits; {shlex.join(lookup(name))}",
            )
    return digests


def is_digest(text: str) -> bool:
    """Returns whether a text is the digest of an image."""
    return re.fullmatch("sha256:[0-9a-f]{64}", text) is not None


def lookup(name: str) -> list[str]:
    """Returns the command that looks a digest up."""
    return ["docker", "buildx", "imagetools", "inspect", name, "--format", "{{.Manifest.Digest}}"]


def lock(path: Path, digests: dict[str, str]) -> None:
    """Writes digests into the file and leaves everything else in it unchanged.

    Raises:
        UsageError: One of them is not a digest; nothing is written.
    """
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    for name, digest in digests.items():
        if not is_digest(digest):
            raise UsageError(f"{name}: '{digest}' is not a digest: nothing was written to {path}")
        document.setdefault(name, tomlkit.table())["digest"] = digest
    write_whole(path, tomlkit.dumps(document).encode())


def pinned(base: str, digests: dict[str, str]) -> str:
    """Returns a base's tag with its digest, or the tag alone if its digest is unlocked."""
    digest = digests.get(base, UNLOCKED)
    return base if digest == UNLOCKED else f"{base}@{digest}"


def bake(digests: dict[str, str]) -> str:
    """Returns the contents of the bake file, with a target for each image."""
    targets = {}
    for image in images().values():
        kind = EXPORT if image.name == EXPORT else "builder"
        arguments = {"BASE": pinned(image.base, digests)}
        if image.runtime:
            arguments["RUNTIME"] = image.runtime
        targets[image.target] = {
            "context": ".",
            "dockerfile": f"docker/{kind}.Dockerfile",
            "args": arguments,
            "tags": [image.tag],
        }
    groups = {"default": {"targets": list(targets)}}
    return json.dumps({"group": groups, "target": targets}, indent=2) + "\n"


def write_bake(root: Path, digests: dict[str, str]) -> None:
    """Writes the bake file of a checkout if its contents changed."""
    path, text = root / BAKE, bake(digests)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_whole(path, text.encode())


def _requirement(install: str) -> str:
    """Returns the requirement of a ``pip install`` command in the table."""
    words = shlex.split(install)
    if words[:2] != ["pip", "install"] or len(words) != 3:
        raise UsageError(
            f"zoo/schema/targets.toml: '{install}' is not a pip install of one package"
        )
    return words[2]
