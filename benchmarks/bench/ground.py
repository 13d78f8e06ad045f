"""What the sections share: a scratch folder, engines built for them, the peers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench.child import ROOT
from benchmarks.bench.peers import Peers, own_command
from benchmarks.bench.turns import command
from zoo.repository.repository import Repository
from zoo.schema.records import BuildRecord, ExportRecord
from zoo.stores import LocalStore
from zoo.util.digest import sha256_file
from zoo.util.errors import RunError

MODEL = "efficientnet_lite0"
"""The network of most sections; its weights are seeded, because speed does not depend on them."""


@dataclass
class Ground:
    """Where a run measures.

    Attributes:
        scratch: An empty folder.
        quick: Whether to measure less: fewer rounds, smaller sizes.
        peers: The peers' environment.
    """

    scratch: Path
    quick: bool
    peers: Peers
    _built: set[str] = field(default_factory=set)

    def rounds(self, full: int, quick: int = 2) -> int:
        """Returns how many rounds to run."""
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """Returns a folder of its own for a section."""
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def environment(self) -> dict[str, str]:
        """For this project's commands: caches and trusted roots stay in the scratch folder."""
        return {**os.environ, "ZOO_HOME": str(self.scratch / "home"), "PYTHONPATH": str(ROOT)}

    @property
    def store(self) -> Path:
        """Folder of the repository that :meth:`engine` fills."""
        return self.scratch / "store"

    @staticmethod
    def root_of(store: Path) -> str:
        """Returns the SHA-256 of a repository's first root, which a client trusts."""
        return sha256_file(store / "metadata" / "1.root.json")

    def engine(self, model: str = MODEL) -> Engine:
        """Returns a model's CPU engine in fp32 with seeded weights, built if it is not there."""
        if model not in self._built:
            command(farm(model, self.store, self.folder("site")), environment=self.environment)
            self._built.add(model)
        return Engine(Repository(LocalStore(self.store)), model)


def farm(
    model: str, store: Path, site: Path, gpu: str = "cpu", precision: str = "fp32"
) -> list[str | Path]:
    """Returns the command that builds, verifies and publishes a model's engine."""
    program = own_command("zoo-farm")
    if program is None:
        raise RunError("zoo-farm is not installed: run make lint, which makes .venv")
    return [
        program, "--manifests", ROOT / "manifests", "zoo", "--models", model, "--gpu", gpu,
        "--precision", precision, "--weights", "seeded", "--store", store, "--site", site,
    ]  # fmt: skip


class Engine:
    """A published engine.

    Args:
        repository: Its repository.
        model: The model.
    """

    def __init__(self, repository: Repository, model: str) -> None:
        self.model = model
        index = repository.model_index(model)
        assert index is not None
        self.entry = index.current[0]
        record = repository.record(model, self.entry.record)
        assert record is not None
        self.record: BuildRecord = record
        export = repository.export(model, record.export_key)
        assert export is not None
        self.export: ExportRecord = export
        blobs = repository.blobs
        self.file = blobs.whole(record.engine, Path())
        self.onnx = blobs.whole(export.onnx, Path())
        self.manifest = manifest_of(model)


def manifest_of(model: str) -> Path:
    """Returns a model's manifest."""
    return ROOT / "manifests" / f"{model}.toml"
