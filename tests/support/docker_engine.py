"""A Docker engine of its own, with an image of the builder made without network.

The base is Debian by mmdebstrap instead of a registry's Python; pip's packages come from a folder
of wheels. The Dockerfile is the one that ``make image`` builds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders.executors.images import image_of
from support.paths import ROOT

RTX = image_of("rtx1.7")
PYTHON = (3, 11)
"""Of Debian 12, which the wheels are for."""


class DockerEngine:
    """Runs ``dockerd`` in a folder; a context manager that stops it."""

    def __init__(self, folder: Path) -> None:
        for program in ("dockerd", "mmdebstrap"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed (Debian: docker.io, mmdebstrap)")
        if os.getuid():
            pytest.skip("dockerd needs root")
        if sys.version_info[:2] != PYTHON:
            pytest.skip(f"the wheels are to be for Python {PYTHON[0]}.{PYTHON[1]}, Debian 12's")
        self.folder = folder
        self.environment = {
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_BUILDKIT": "0",  # the classic builder needs no plugin
            "PATH": f"/usr/sbin:/usr/bin:{os.environ['PATH']}",
        }
        # No rules in the host's firewall, no bridge: nothing here needs a network.
        command = [
            "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none",
            "--userland-proxy=false", f"--host={self.environment['DOCKER_HOST']}",
            f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}",
            f"--pidfile={folder / 'pid'}", "--default-ulimit=nofile=1024:1024",
        ]  # fmt: skip
        with (folder / "dockerd.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> DockerEngine:
        while not (self.folder / "docker.sock").exists():
            if self._process.poll() is not None:
                log = (self.folder / "dockerd.log").read_text().splitlines()
                pytest.skip(f"dockerd does not start here: {log[-1]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def docker(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            ["docker", *map(str, arguments)],
            capture_output=True, text=True, env={**os.environ, **self.environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def build(self) -> None:
        """Builds the image of TensorRT-RTX's builder."""
        system, context = self.folder / "system.tar", self.folder / "context"
        packages = "--include=python3,python3-pip"
        _run("mmdebstrap", "--variant=minbase", packages, "bookworm", system)
        self.docker("import", system, "zoo-test/debian:12")
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "-c", ROOT / "constraints.txt")
        needed = (f"{ROOT}[cuda,dask,s3,worker]", RTX.runtime, "setuptools>=77")
        _run(*pip, "--wheel-dir", context / "wheels", *needed)
        (context / "Dockerfile").write_text("FROM zoo-test/debian:12\nCOPY wheels /wheels\n")
        self.docker("build", "--network=none", "--tag=zoo-test/base:12", context)
        arguments = {
            "BASE": "zoo-test/base:12",
            "RUNTIME": RTX.runtime,
            "PIP": "--no-index --find-links /wheels",
        }
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        recipe = ROOT / "docker" / "builder.Dockerfile"
        self.docker("build", "--network=none", "--file", recipe, *options, f"--tag={RTX.tag}", ROOT)


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
