"""The commands of containers: images, image."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from typing import Any

from builders.executors import images
from builders.paths import ROOT
from zoo.cli.main import add_arguments
from zoo.util.errors import MissingPackageError, UsageError


def show(options: argparse.Namespace) -> int:
    """Lists images and whether their bases are pinned; --lock looks the digests up."""
    if options.lock:
        _check_docker()
        found = {name: _digest(name) for name in _bases()}
        images.lock(ROOT / images.IMAGES, found)
    digests = images.read_digests(ROOT / images.IMAGES)
    images.write_bake(ROOT, digests)
    for image in images.images().values():
        print(f"{image.tag:<28} {images.pinned(image.base, digests)}  {image.runtime}".rstrip())
    for name in unlocked_bases():
        print(f"unlocked: {name}\n  {shlex.join(images.lookup(name))}")
    return 0


def build(options: argparse.Namespace) -> int:
    """Builds the image of a TensorRT line, or the export's."""
    image = images.image_of(options.trt)
    digests = images.read_digests(ROOT / images.IMAGES)
    if digests.get(image.base, images.UNLOCKED) == images.UNLOCKED and not options.allow_unlocked:
        raise UsageError(
            f"{image.base}: its digest is unlocked in {images.IMAGES}: nobody knows what is in it",
            hint="zoo-farm images --lock looks it up; ALLOW_UNLOCKED=yes (--allow-unlocked) takes "
            "what the tag is today",
        )
    _check_docker()
    images.write_bake(ROOT, digests)
    # --load: whichever builder makes it, the engine that runs jobs has it then.
    command = ["docker", "buildx", "bake", "--load", "-f", str(images.BAKE), image.target]
    print(shlex.join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def unlocked_bases() -> list[str]:
    """Returns the bases of images whose digests are not locked yet."""
    digests = images.read_digests(ROOT / images.IMAGES)
    return [name for name in _bases() if digests.get(name, images.UNLOCKED) == images.UNLOCKED]


def _bases() -> list[str]:
    return list(dict.fromkeys(image.base for image in images.images().values()))


def _digest(name: str) -> str:
    """Looks up what a tag is today.

    Raises:
        UsageError: The registry does not say.
    """
    done = subprocess.run(images.lookup(name), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"{name}: docker does not find its digest: {said}")
    return done.stdout.strip()


def _check_docker() -> None:
    """Raises MissingPackageError where docker or its buildx plugin is not installed."""
    try:
        done = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
        missing = "docker has no buildx plugin" if done.returncode else ""
    except FileNotFoundError:
        missing = "docker is not installed"
    if missing:
        raise MissingPackageError(missing, hint="install Docker Engine with its buildx plugin")


def add_commands(commands: Any) -> None:
    """Adds these commands to ``zoo-farm``."""
    listed = add_arguments(commands, "images", show)
    listed.add_argument("--lock", action="store_true", help="look digests up and write them down")
    made = add_arguments(commands, "image", build)
    made.add_argument("--trt", default="", help="line of the builder (default: the export's image)")
    made.add_argument("--allow-unlocked", action="store_true", help="build on today's tag")
