"""The steps of :mod:`benchmarks.bench.growth`, which run in processes of their own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.signed_repository import Signed, publish_many

from benchmarks import large_cache
from benchmarks.large_cache import CLASSES, Step, run_step
from benchmarks.synthetic_cache import write_cache
from zoo.client.client import Client
from zoo.client.trust import SignedIndex
from zoo.repository.repository import Repository
from zoo.stores import LocalStore

__all__ = ["RECORD_STEPS", "ROW_STEPS", "STEPS", "Path", "run_step"]

_OTHERS = 0.999  # cosine that no two of the made-up rows reach


def _write(folder: Path, rows: int, width: int) -> None:
    shutil.rmtree(folder)
    write_cache(folder, rows, width, CLASSES)


def _near_duplicates(folder: Path, rows: int, width: int) -> None:
    from zoo.caft.cache import FeatureCache
    from zoo.caft.neighbours import near_duplicates

    if not any(folder.iterdir()):
        write_cache(folder, rows, width, CLASSES)
    assert not near_duplicates(FeatureCache(folder), _OTHERS)


def _sign(folder: Path, models: int, width: int) -> None:
    shutil.rmtree(folder)
    publish_many(Signed(folder, bins=16), models)


def _read(work: Callable[[Client], object]) -> Step:
    """Returns a step in which a new client reads the signed repository."""

    def run(folder: Path, models: int, width: int) -> None:
        store = LocalStore(folder / "store")
        root = (folder / "store" / "metadata" / "1.root.json").read_bytes()
        with tempfile.TemporaryDirectory() as home:
            signed = SignedIndex(store, Path(home) / "verified", root)
            work(Client(Repository(store, signed), Path(home) / "cache", signed))

    return run


ROW_STEPS: Mapping[str, Step] = {
    **large_cache.STEPS,
    "write": _write,  # again in every round
    "near-duplicates": _near_duplicates,
}
"""Steps on rows of a feature cache."""

RECORD_STEPS: Mapping[str, Step] = {
    "sign an index": _sign,
    "find a model": _read(lambda client: client.model("model_1")),
    "list all models": _read(lambda client: client.index()),
}
"""Steps on models of 20 engines each."""

STEPS: Mapping[str, Step] = {**ROW_STEPS, **RECORD_STEPS}
