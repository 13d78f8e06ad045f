"""Comparison: measures engines beside PyTorch and writes it into the repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from builders.measure.engine_vs_pytorch import (
    beside_torch_speed,
    compare_engines,
    read_torch_speed,
    summary,
    to_markdown,
)
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
    """Times CPU engines and eager PyTorch in turns.

    Args:
        repository: Where the engines are published; takes what is found out.
        proposals: Takes what the index is to say.
        manifests: The models.
        manifest_dir: Their folder.
        say: Takes what comes next.

    Returns:
        A table.

    Raises:
        RepositoryError: No CPU engine of these models is published.
    """
    rows = []
    for manifest in manifests:
        say(f"{manifest.id} ...")
        found = compare_engines(repository, manifest, manifest_dir)
        for engine in dict.fromkeys(row.engine for row in found):
            own = summary(row for row in found if row.engine == engine)
            records.attest_comparison(repository, engine, own)
        if found:
            proposals.send_again(manifest.id)
        rows += found
    if not rows:
        raise RepositoryError(
            f"{repository.store.url}: no CPU engine of these models is published here",
            hint="make zoo GPU=cpu publishes them",
        )
    return to_markdown(rows)


def compare_on_gpu(repository: Repository, proposals: Proposals, folder: Path) -> list[str]:
    """Puts the benchmarks of GPU engines beside what ``torch-speed`` measured.

    Args:
        repository: Where the engines are published; takes what is found out.
        proposals: Takes what the index is to say.
        folder: Where ``torch-speed`` wrote.

    Returns:
        A line per engine.

    Raises:
        RepositoryError: Nothing here was timed on such a GPU in that precision.
        UsageError: A file there is of another kind.
    """
    lines = []
    for path in sorted(folder.glob("*.json")):
        speed = read_torch_speed(path)
        index = repository.model_index(speed["model"])
        for entry in index.engines if index else ():
            if (found := beside_torch_speed(entry, speed)) is None:
                continue
            records.attest_comparison(repository, entry.engine.sha256, found)
            slower = ", ".join(map(str, found.slower_at)) or "no batch size"
            targets = "+".join(entry.targets)
            lines.append(f"{speed['model']} {targets}: slower than PyTorch at {slower}")
        if index:
            proposals.send_again(speed["model"])
    if not lines:
        raise RepositoryError(
            f"no engine here was timed on the GPU and in the precision of {folder}",
            hint="zoo-farm torch-speed and make zoo (or verify) on one machine make both",
        )
    return lines
