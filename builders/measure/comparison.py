"""Compares engines with PyTorch and attests the results in the repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from builders.measure.engine_vs_pytorch import (
    compare_engines,
    summary,
    to_markdown,
)
from builders.measure.torch_speed import beside_torch_speed, read_torch_speed
from builders.publish import records
from builders.publish.candidates import Proposals
from zoo.repository.repository import Repository
from zoo.schema.manifest import Manifest
from zoo.util.errors import RepositoryError


def compare_on_cpu(
    repository: Repository,
    proposals: Proposals,
    manifests: Iterable[Manifest],
    manifest_dir: Path,
    say: Callable[[str], None],
) -> str:
    """Times CPU engines and eager PyTorch alternately.

    Args:
        repository: The repository of the engines, where the results are attested.
        proposals: Receives the models whose index changes.
        manifests: The models.
        manifest_dir: Folder of the manifests.
        say: Prints progress.

    Returns:
        A Markdown table.

    Raises:
        RepositoryError: None of these models has a published CPU engine.
    """
    rows = []
    for manifest in manifests:
        say(f"{manifest.id} ...")
        measured = compare_engines(repository, manifest, manifest_dir)
        for engine in dict.fromkeys(row.engine for row in measured):
            comparison = summary(row for row in measured if row.engine == engine)
            if not comparison.batches:  # an earlier one, made in quiet, stays
                say(f"{manifest.id}: too noisy at every batch size, nothing is recorded")
                continue
            records.attest_comparison(repository, engine, comparison)
        if measured:
            proposals.send_again(manifest.id)
        rows += measured
    if not rows:
        raise RepositoryError(
            f"{repository.store.url}: no CPU engine of these models is published",
            hint="make zoo GPU=cpu publishes them",
        )
    return to_markdown(rows)


def compare_on_gpu(repository: Repository, proposals: Proposals, folder: Path) -> list[str]:
    """Compares the benchmarks of GPU engines with the results of ``torch-speed``.

    Args:
        repository: The repository of the engines, where the results are attested.
        proposals: Receives the models whose index changes.
        folder: Output folder of ``torch-speed``.

    Returns:
        A line per engine.

    Raises:
        RepositoryError: No engine was benchmarked on the same kind of GPU in the same precision.
        UsageError: A file in the folder is not a result of ``torch-speed``.
    """
    lines = []
    for path in sorted(folder.glob("*.json")):
        speed = read_torch_speed(path)
        index = repository.model_index(speed.model)
        for entry in index.engines if index else ():
            if (comparison := beside_torch_speed(entry, speed)) is None:
                continue
            records.attest_comparison(repository, entry.engine.sha256, comparison)
            slower = ", ".join(map(str, comparison.slower_at)) or "no batch size"
            targets = "+".join(entry.targets)
            lines.append(f"{speed.model} {targets}: slower than PyTorch at {slower}")
        if index:
            proposals.send_again(speed.model)
    if not lines:
        raise RepositoryError(
            f"no engine was benchmarked on the GPU and in the precision of {folder}",
            hint="run zoo-farm torch-speed and make zoo (or make verify) on the same machine",
        )
    return lines
