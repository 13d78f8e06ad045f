"""Commands on container images: ``images``, ``image``."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from typing import Any

from builders.executors import images
from builders.paths import ROOT
from zoo.cli.command import add_arguments
from zoo.util.causes import end_of
from zoo.util.errors import MissingPackageError, UsageError


def show(options: argparse.Namespace) -> int:
    """Lists images and the digests that pin their bases; --lock looks the digests up."""
    if options.lock:
        _check_docker()
        images.lock(ROOT / images.IMAGES, {name: _digest(name) for name in _bases()})
    digests = images.read_digests(ROOT / images.IMAGES)
    images.write_bake(ROOT, digests)
    for image in images.images().values():
        print(f"{image.tag:<28} {images.pinned(image.base, digests)}  {image.runtime}".rstrip())
    for name in unlocked_bases():
        print(f"unlocked: {name}\n  {shlex.join(images.lookup(name))}")
    return 0


def build(options: argparse.Namespace) -> int:
    """Builds the image of a TensorRT line, or the one that exports."""
    image = images.image_of(options.trt)
    digests = images.read_digests(ROOT / images.IMAGES)
    if digests.get(image.base, images.UNLOCKED) == images.UNLOCKED and not options.allow_unlocked:
        raise UsageError(
            f"{image.base}: its digest is not locked in {images.IMAGES}, so its contents may "
            "change",
            hint="zoo-farm images --lock looks it up; ALLOW_UNLOCKED=yes (--allow-unlocked) builds "
            "on today's image of the tag",
        )
    _check_docker()
    images.write_bake(ROOT, digests)
    # --load: some buildx builders keep their images to themselves; jobs need this one in docker.
    command = ["docker", "buildx", "bake", "--load", "-f", str(images.BAKE), image.target]
    print(shlex.join(command), flush=True)
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status == 0 and options.cyclonedx:
        write_sbom(image, options.cyclonedx)
    return status


def write_sbom(image: images.Image, program: str) -> None:
    """Writes an SBOM (CycloneDX) of an image's Python packages to ``dist/``.

    Raises:
        UsageError: The packages can't be listed, or the program fails.
    """
    path = ROOT / "dist" / f"{image.target}.cdx.json"
    path.parent.mkdir(exist_ok=True)
    listing = ["docker", "run", "--rm", "--network", "none", image.tag]
    listing += ["python3", "-m", "pip", "freeze", "--all"]
    packages = _output(listing, "")
    _output([program, "requirements", "-", "--output-reproducible", "-o", str(path)], packages)
    print(f"SBOM: {path}")


def _output(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"no SBOM: {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise UsageError(f"no SBOM: {shlex.join(command)}: {end_of(done.stderr)}")
    return done.stdout


def unlocked_bases() -> list[str]:
    """Returns the base images whose digests are not locked yet."""
    digests = images.read_digests(ROOT / images.IMAGES)
    return [name for name in _bases() if digests.get(name, images.UNLOCKED) == images.UNLOCKED]


def _bases() -> list[str]:
    return list(dict.fromkeys(image.base for image in images.images().values()))


def _digest(name: str) -> str:
    """Returns the digest that a tag resolves to today.

    Raises:
        UsageError: The registry doesn't have it or can't be reached.
    """
    done = subprocess.run(images.lookup(name), capture_output=True, text=True, check=False)
    if done.returncode:
        message = end_of(done.stderr)
        raise UsageError(f"{name}: docker can't look up its digest: {message}")
    return done.stdout.strip()


def _check_docker() -> None:
    """Raises MissingPackageError if docker or its buildx plugin is not installed."""
    try:
        done = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
        missing = "docker has no buildx plugin" if done.returncode else ""
    except FileNotFoundError:
        missing = "docker is not installed"
    if missing:
        raise MissingPackageError(missing, hint="install Docker Engine with its buildx plugin")


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser's subcommands."""
    of_images = add_arguments(commands, "images", show)
    of_images.add_argument(
        "--lock", action="store_true", help=f"look digests up and write them to {images.IMAGES}"
    )
    of_image = add_arguments(commands, "image", build)
    of_image.add_argument(
        "--trt", default="", help="TensorRT line (default: the image that exports)"
    )
    of_image.add_argument(
        "--allow-unlocked", action="store_true", help="build on today's image of the base's tag"
    )
    of_image.add_argument(
        "--cyclonedx", default="", metavar="PROGRAM",
        help="cyclonedx-py: writes an SBOM of the image's Python packages to dist/ (default: none)",
    )  # fmt: skip
