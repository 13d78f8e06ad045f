"""Feature caches as tables of other programs, and read in batches."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.caft import folder, toy, write_cache
from support.goldens import raises_golden

from zoo.caft import FeatureCache, cache_features, tables
from zoo.caft.card import Card
from zoo.cli.main import client_parser, run_cli
from zoo.util.errors import CacheError, MissingPackageError, UsageError

LABELS = ["cat", "dog", None, "cat", "ünï"]


@pytest.fixture(params=[1, 3], ids=["plain", "views"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureCache:
    views = int(request.param)
    features = np.random.default_rng(0).normal(size=(len(LABELS) * views, 6)).astype(np.float32)
    return FeatureCache(write_cache(tmp_path / "cache", features, LABELS, views=views))


def rows_of(cache: FeatureCache) -> list[tuple[str, int, str | None, list[float]]]:
    names = list(cache.names())
    labels = [cache.label_names[label] if label >= 0 else None for label in cache.labels]
    return [
        (names[row // cache.views], row % cache.views, labels[row // cache.views], values.tolist())
        for row, values in enumerate(np.asarray(cache.features, np.float32))
    ]


def rows_in(table: Any) -> list[tuple[Any, ...]]:
    columns = (table[name].to_pylist() for name in ("name", "view", "label", "features"))
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("at_once", [1, 100, 32 << 20])
def test_arrow_and_parquet(
    cache: FeatureCache, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(tables, "_AT_ONCE", at_once)
    tables.write_table(cache, tmp_path / "rows.parquet")
    tables.write_table(cache, tmp_path / "rows.arrow")
    in_parquet = parquet.read_table(tmp_path / "rows.parquet")
    with pa.memory_map(str(tmp_path / "rows.arrow")) as file:
        in_arrow = pa.ipc.open_file(file).read_all()
    assert rows_in(in_parquet) == rows_in(in_arrow) == rows_of(cache)
    card = Card.model_validate_json(in_parquet.schema.metadata[tables.CARD])
    assert card == cache.card


def test_arrow_does_not_copy(cache: FeatureCache) -> None:
    batch = next(iter(tables.arrow_batches(cache)))
    flat = batch["features"].flatten().to_numpy(zero_copy_only=True)
    assert flat.ctypes.data == cache.features.ctypes.data


def test_csv(cache: FeatureCache, tmp_path: Path) -> None:
    import pandas as pd

    tables.write_table(cache, tmp_path / "rows.csv")
    table = pd.read_csv(tmp_path / "rows.csv")
    assert list(table.columns) == ["name", "view", "label", *(f"f{n}" for n in range(6))]
    values = table[[f"f{n}" for n in range(6)]].to_numpy(np.float32)
    np.testing.assert_array_equal(values, np.asarray(cache.features))
    assert [None if pd.isna(label) else label for label in table["label"]] == [
        row[2] for row in rows_of(cache)
    ]


def test_npz_needs_no_pyarrow(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    tables.write_table(cache, tmp_path / "rows.npz")
    with np.load(tmp_path / "rows.npz") as stored:
        np.testing.assert_array_equal(stored["features"], cache.features)
        np.testing.assert_array_equal(stored["labels"], np.repeat(cache.labels, cache.views))
        assert stored["names"].tolist() == [row[0] for row in rows_of(cache)]
        assert stored["views"].tolist() == [row[1] for row in rows_of(cache)]
        assert tuple(stored["label_names"]) == cache.label_names
    with raises_golden(MissingPackageError, "caft/no-pyarrow"):
        tables.write_table(cache, tmp_path / "rows.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "rows.npz"]


def test_npz_is_what_numpy_writes(cache: FeatureCache, tmp_path: Path) -> None:
    names = np.array([row[0] for row in rows_of(cache)])
    np.savez(tmp_path / "numpy.npz", features=cache.features, names=names)
    tables.write_table(cache, tmp_path / "rows.npz")
    with zipfile.ZipFile(tmp_path / "rows.npz") as own, np.load(tmp_path / "numpy.npz") as other:
        assert own.testzip() is None
        for name in ("features", "names"):
            assert own.read(f"{name}.npy") == other.zip.read(f"{name}.npy")


def test_webdataset(cache: FeatureCache, tmp_path: Path) -> None:
    import webdataset

    output = tmp_path / "rows.tar"
    tables.write_table(cache, output)
    samples = list(webdataset.WebDataset(str(output), shardshuffle=False, empty_check=False))
    rows = [
        (facts["name"], facts["view"], facts["label"], np.load(io.BytesIO(sample["features.npy"])))
        for sample in samples
        for facts in [json.loads(sample["json"])]
    ]
    assert [(*row[:3], row[3].tolist()) for row in rows] == rows_of(cache)
    numbers = [int(sample["cls"]) if "cls" in sample else -1 for sample in samples]
    assert numbers == np.repeat(cache.labels, cache.views).tolist()
    again = tmp_path / "again.tar"
    tables.write_table(cache, again)
    assert again.read_bytes() == output.read_bytes()


@pytest.mark.parametrize("kind", tables.TableFormat)
def test_every_row_is_reported_as_written(
    kind: tables.TableFormat, cache: FeatureCache, tmp_path: Path
) -> None:
    written: list[int] = []
    tables.write_table(cache, tmp_path / f"rows{tables.FORMATS[kind].suffix}", written.append)
    assert sum(written) == len(cache)


def test_half_precision(tmp_path: Path) -> None:
    from pyarrow import parquet

    with toy() as extractor:
        cache_features(folder(tmp_path / "photos"), extractor, tmp_path / "c", storage="fp16")
    cache = FeatureCache(tmp_path / "c")
    for facts in tables.FORMATS.values():
        tables.write_table(cache, tmp_path / f"rows{facts.suffix}")
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert str(table.schema.field("features").type.value_type) == "halffloat"
    assert rows_in(table) == rows_of(cache)


def test_bad_output(cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises_golden(UsageError, "caft/no-such-table", {tmp_path: "FOLDER"}):
        tables.write_table(cache, tmp_path / "rows.xlsx")

    def full(*arguments: Any, **arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    (tmp_path / "rows.npz").write_bytes(b"before")
    with raises_golden(CacheError, "caft/no-room-for-a-table", {tmp_path: "FOLDER"}):
        tables.write_table(cache, tmp_path / "rows.npz")
    assert (tmp_path / "rows.npz").read_bytes() == b"before"
    assert not list(tmp_path.glob("*.part"))


def test_damaged_features_are_not_exported(cache: FeatureCache, tmp_path: Path) -> None:
    data = bytearray((cache.folder / "features.npy").read_bytes())
    data[-3] ^= 0x40
    (cache.folder / "features.npy").write_bytes(data)
    with pytest.raises(CacheError):
        tables.write_table(FeatureCache(cache.folder), tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


def test_the_command(
    cache: FeatureCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "rows.parquet")
    assert run_cli(client_parser(), ["export-features", str(cache.folder), "-o", output]) == 0
    assert f"{output}: {len(cache)} rows, 6 features" in capsys.readouterr().out
    assert (
        run_cli(client_parser(), ["export-features", str(tmp_path / "none"), "-o", output])
        == CacheError.exit_code
    )


def test_slices_and_batches(cache: FeatureCache) -> None:
    labels = np.repeat(cache.labels, cache.views)
    features, some = cache[1:4]
    np.testing.assert_array_equal(features, cache.features[1:4])
    np.testing.assert_array_equal(some, labels[1:4])
    np.testing.assert_array_equal(cache[::-2][1], labels[::-2])
    assert cache[5:2][0].shape == (0, 6)
    in_order = list(cache.batches(4))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in in_order]), cache.features)
    shuffled = list(cache.batches(4, seed=3))
    assert [len(part) for part, _ in shuffled] == [len(part) for part, _ in in_order]
    found = {
        tuple(row): label for part, some in shuffled for row, label in zip(part, some, strict=True)
    }
    assert found == {tuple(row): label for row, label in zip(cache.features, labels, strict=True)}
    for size in (0, -1):
        with pytest.raises(UsageError):
            cache.batches(size)
    again = list(cache.batches(4, seed=3))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(shuffled, again, strict=True))
