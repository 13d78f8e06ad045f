"""Images: what each container is made from, and whether its base is pinned.

``docker/bake.json`` is generated from the targets table and ``docker/images.toml``. Where the table
names no container for a line, the builder is made from Python's own image and pip's packages of
that line: no document says which tag of the vendor's image has which TensorRT.
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
from zoo.util.names import perhaps
from zoo.util.toml import toml

UNLOCKED = "unlocked"
PYTHON = "docker.io/library/python:3.12-slim-bookworm"
IMAGES, BAKE = Path("docker/images.toml"), Path("docker/bake.json")
EXPORT = "export"

_NAME = "caft-zoo"
NOT_MADE = {"trt8.6": "its wheel wants CPython 3.10 at most and a cuBLAS and cuDNN of its own: "
             "BUILDER_PYTHON= names a Python that has it"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that the farm runs.

    Attributes:
        name: ``export``, or the line whose builder it is, ``trt11.4``.
        base: What it is made from, by tag.
        runtime: What pip installs of the runtime; empty where the base has it.
    """

    name: str
    base: str
    runtime: str = ""

    @property
    def tag(self) -> str:
        """What it is called."""
        return f"{_NAME}/export:latest" if self.name == EXPORT else f"{_NAME}/builder:{self.name}"

    @property
    def target(self) -> str:
        """Its name in the bake file, which allows no dots."""
        return EXPORT if self.name == EXPORT else f"builder-{self.name.replace('.', '_')}"


def images() -> dict[str, Image]:
    """Returns every image by name: the export's, and a builder for each GPU line of the table."""
    found = {EXPORT: Image(name=EXPORT, base=PYTHON)}
    for name, line in target_table().line.items():
        if not on_gpu(RuntimeLine.parse(name).kind) or name in NOT_MADE:
            continue
        if line.container in ("none", UNLOCKED):
            found[name] = Image(name=name, base=PYTHON, runtime=_requirement(line.install))
        else:
            found[name] = Image(name=name, base=line.container)
    return found


def image_of(line: str) -> Image:
    """Returns the image of a line; the export's for an empty one.

    Raises:
        UsageError: There is none; says why, or which there are.
    """
    known = images()
    if not line:
        return known[EXPORT]
    for name in (line, f"trt{line}"):
        if name in known:
            return known[name]
        if name in NOT_MADE:
            raise UsageError(f"no image is made for TRT={line}: {NOT_MADE[name]}")
    names = [name.removeprefix("trt") for name in known if name != EXPORT]
    raise UsageError(
        f"no image for TRT={line}.{perhaps(line, names)}", hint=f"there are {', '.join(names)}"
    )


def read_digests(path: Path) -> dict[str, str]:
    """Reads the digests of base images, ``unlocked`` for those that nobody has looked up.

    Raises:
        UsageError: The file can't be read, or a digest is none.
    """
    try:
        table: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, toml.TOMLDecodeError) as error:
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
                f"{path}: {name}: '{digest}' is no digest",
                hint=f"one is sha256: and 64 hexadecimal digits; {shlex.join(lookup(name))}",
            )
    return digests


def is_digest(text: str) -> bool:
    """Whether a text is the digest of an image."""
    return re.fullmatch("sha256:[0-9a-f]{64}", text) is not None


def lookup(name: str) -> list[str]:
    """Returns the command that looks a digest up."""
    return ["docker", "buildx", "imagetools", "inspect", name, "--format", "{{.Manifest.Digest}}"]


def lock(path: Path, found: dict[str, str]) -> None:
    """Writes digests into the file, everything else in it left as it is.

    Raises:
        UsageError: One of them is no digest; nothing is written.
    """
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    for name, digest in found.items():
        if not is_digest(digest):
            raise UsageError(f"{name}: '{digest}' is no digest: nothing was written to {path}")
        document.setdefault(name, tomlkit.table())["digest"] = digest
    write_whole(path, tomlkit.dumps(document).encode())


def pinned(base: str, digests: dict[str, str]) -> str:
    """Returns a base with its digest, by its tag alone where that is unlocked."""
    digest = digests.get(base, UNLOCKED)
    return base if digest == UNLOCKED else f"{base}@{digest}"


def bake(digests: dict[str, str]) -> str:
    """Returns the file for ``docker buildx bake``: a target for each image."""
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
    """Writes the bake file of a checkout, where it is not what it would be."""
    path, text = root / BAKE, bake(digests)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_whole(path, text.encode())


def _requirement(install: str) -> str:
    """Returns what ``pip install`` of the table installs."""
    words = shlex.split(install)
    if words[:2] != ["pip", "install"] or len(words) != 3:
        raise UsageError(f"zoo/schema/targets.toml: '{install}' is no pip install of one package")
    return words[2]
