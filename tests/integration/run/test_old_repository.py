"""A repository that commit 8b658fa made goes on: today's farm has nothing to do on it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.make_farm import Farm, counts
from support.paths import ROOT

import zoo

ARCHIVE = ROOT / "tests" / "data" / "repository-8b658fa.tar.xz"
CPU = "cpu-ort1.32-fp32"
RUNTIMES = {"ort": "onnxruntime", "rtx": "tensorrt_rtx_cu13"}


def unpack(folder: Path) -> Farm:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    farm = Farm(folder=folder, manifests=folder / "manifests")
    farm.trusted_in(folder / "home")
    return farm


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(farm: Farm) -> list[str]:
    """Where this machine's keys differ from those of the machine that made the repository."""
    records = farm.repository.records("current")
    export = farm.repository.export("current", records[0].export_key)
    assert export is not None
    expected: dict[str, tuple[str, str | None]] = {
        package: (recorded, installed(package))
        for package, recorded in export.inputs.versions.items()
    }
    for toolchain in (record.inputs.toolchain for record in records):
        package = RUNTIMES[toolchain.kind]
        expected[package] = (toolchain.version, installed(package))
        expected["processor"] = (toolchain.machine, platform.machine())
        expected["system"] = (toolchain.os, platform.system().lower())
    return [
        f"{what} {recorded} made it, {here or 'none'} is here"
        for what, (recorded, here) in expected.items()
        if here != recorded
    ]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    farm = unpack(tmp_path_factory.mktemp("old"))
    if found := differences(farm):
        pytest.skip(f"other inputs have other keys: {'; '.join(found)}")
    return farm


def run(farm: Farm, *request: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "builders.cli", "--manifests", str(farm.manifests), "zoo",
         "--weights", "seeded", "--store", str(farm.store), "--site", str(farm.folder / "site"),
         *request],
        capture_output=True, text=True, cwd=farm.folder, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **farm.home},
    )  # fmt: skip


def records_of(farm: Farm) -> dict[str, bytes]:
    """Everything that earlier runs left, the signed index aside: it is renewed as time passes."""
    signed = ("metadata/", "index/", "index.json")
    return {
        key: data
        for key, data in farm.snapshot().items()
        if not key.startswith(signed) and not key.endswith(".index.json")
    }


def requests() -> list[Any]:
    with tarfile.open(ARCHIVE) as archive:
        member = archive.extractfile("requests.json")
        assert member is not None
        return list(json.load(member))


def test_it_holds_what_earlier_runs_leave(farm: Farm) -> None:
    kinds = {key.split("/")[0] for key in records_of(farm)}
    assert {"attestations", "disabled", "exports", "missed", "records", "strikes"} <= kinds
    indexes = {index.model: index for index in farm.repository.model_indexes()}
    assert {entry.status for entry in indexes["current"].engines} == {"verified", "pending"}
    assert [entry.superseded is None for entry in indexes["replaced"].engines] == [True, False]
    for model in ("withdrawn", "missed"):
        assert [entry.status for entry in indexes[model].engines] == ["withdrawn"]
    assert [cell.stage for cell in indexes["disabled"].disabled] == ["export"]


@pytest.mark.parametrize("made", requests(), ids=lambda made: "-".join(made["request"][1::2]))
def test_the_same_request_has_nothing_to_do(made: dict[str, Any], farm: Farm) -> None:
    before = records_of(farm)
    done = run(farm, *made["request"])
    assert done.returncode == made["status"], done.stdout + done.stderr
    assert records_of(farm) == before
    assert ": build " not in done.stdout
    assert ": export " not in done.stdout
    if made["request"][1] in ("current", "replaced"):
        assert counts(done).current


def test_it_is_signed_again_and_its_keys_stay(farm: Farm, tmp_path: Path) -> None:
    copy = farm.copy(tmp_path)
    before = records_of(copy)
    done = subprocess.run(
        [sys.executable, "-m", "builders.cli", "publish", "--store", str(copy.store), "--refresh"],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **copy.home},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert records_of(copy) == before


def test_a_client_lists_pulls_and_runs_an_engine(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = farm.zoo("list")
    assert listed.returncode == 0, listed.stderr
    assert "current" in listed.stdout
    assert CPU in farm.zoo("show", "current").stdout
    pulled = farm.zoo("pull", "current", "--target", CPU, "--allow-seeded")
    assert pulled.returncode == 0, pulled.stderr
    monkeypatch.setenv("ZOO_HOME", farm.home["ZOO_HOME"])
    with zoo.load("current", store=str(farm.store), target=CPU, allow_seeded=True) as extractor:
        features = extractor(np.zeros((3, 64, 64, 3), np.uint8))
    assert features.shape == (3, 64)
    assert np.isfinite(features).all()
    assert np.allclose(features[0], features[1], rtol=1e-4, atol=1e-5)


def farm_command(farm: Farm, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "builders.cli", "--manifests", str(farm.manifests), command,
         *arguments, *(() if "--store" in arguments else ("--store", str(farm.store)))],
        capture_output=True, text=True, cwd=farm.folder, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **farm.home},
    )  # fmt: skip


def test_a_withdrawn_cpu_engine_is_verified_here_and_reinstated(farm: Farm, tmp_path: Path) -> None:
    copy = farm.copy(tmp_path)
    copy.trusted_in(tmp_path / "home")
    place = ("withdrawn", CPU)
    done = farm_command(copy, "reinstate", *place, "--reason", "a test says so")
    assert done.returncode == 0, done.stdout + done.stderr
    index = copy.repository.model_index("withdrawn")
    assert index is not None
    assert [entry.status for entry in index.engines] == ["verified"]
    again = run(copy, "--models", "withdrawn", "--gpu", "cpu", "--precision", "fp32")
    assert again.returncode == 0, again.stdout + again.stderr
    assert counts(again).current == 1
    # A verification alone does not undo what a person decided.
    assert farm_command(copy, "withdraw", *place, "--reason", "again").returncode == 0
    assert farm_command(copy, "verify", "--models", "withdrawn").returncode == 0
    index = copy.repository.model_index("withdrawn")
    assert index is not None
    assert [entry.status for entry in index.engines] == ["withdrawn"]


def test_a_builder_is_added_and_everything_goes_on(farm: Farm, tmp_path: Path) -> None:
    copy = farm.copy(tmp_path)
    copy.trusted_in(tmp_path / "home")
    store = ("--store", str(copy.store))
    warned = farm_command(copy, "publish", "--refresh")
    assert warned.returncode == 0, warned.stdout + warned.stderr
    assert "builders add" in warned.stderr
    before, known = records_of(copy), list(copy.repository.model_indexes())
    added = farm_command(copy, "builders", "add", "first", *store)
    assert added.returncode == 0, added.stdout + added.stderr
    published = farm_command(copy, "publish", "--refresh")
    assert (published.returncode, published.stderr) == (0, "")
    again = run(copy, "--models", "current", "--gpu", "cpu", "--precision", "fp32")
    assert again.returncode == 0, again.stdout + again.stderr
    assert counts(again).current == 1
    assert records_of(copy) == before
    assert list(copy.repository.model_indexes()) == known
    verified = farm_command(copy, "verify", "--models", "current")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    index = copy.repository.model_index("current")
    assert index is not None
    (here,) = [entry for entry in index.engines if CPU in entry.targets]
    attested = copy.repository.attestations(here.engine.sha256)
    assert [one.signature is None for one in attested][:1] == [True]
    assert attested[-1].signature is not None
    assert set(here.attested) == {one.short for one in attested}
