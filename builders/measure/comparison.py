"""Compares engines with PyTorch and attests the results in the repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from builders.measure.engine_vs_pytorch import (
    compare_engines,
    summary,
    to_markdown,
)
from builders.measure.torch_speed import beside_torch_speed, read_torch_speed
from builders.publish import records
from builders.publish.candidates import Proposals
from zoo.client.host import describe_machine
from zoo.repository.repository import Repository
from zoo.schema.intervals import times_as_fast
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import ComparedBody
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
            records.attest_comparison(repository, engine, comparison, describe_machine())
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
            name = f"{speed.model} {'+'.join(entry.targets)}"
            lines += [f"{name}: {line}" for line in _lines(comparison)]
            if comparison.batches:  # else an earlier one, made in quiet, stays
                digest = entry.engine.sha256
                records.attest_comparison(repository, digest, comparison, speed.machine)
        if index:
            proposals.send_again(speed.model)
    if not lines:
        raise RepositoryError(
            f"no engine was benchmarked on the GPU and in the precision of {folder}",
            hint="run zoo-farm torch-speed and make zoo (or make verify) on the same machine",
        )
    return lines


def _lines(comparison: ComparedBody) -> Iterator[str]:
    """Yields a line per batch size: how many times as fast as PyTorch, or why that is unknown."""
    for row in comparison.batches:
        fast = times_as_fast(row.ratio or 0, row.ratio_interval)
        yield f"at batch {row.batch} against PyTorch: {fast}"
    for noisy in comparison.not_measured:
        yield f"at batch {noisy.batch} not measured: {noisy.reason}"
