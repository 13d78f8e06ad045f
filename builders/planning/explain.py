"""Explains what would be done for a published target, and which of its inputs differ."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from builders.history.failures import Failures
from builders.photos.calibration import from_folder, shipped
from builders.planning.decide import Decider
from builders.planning.decision import ACTION_FACTS, Cause, Decision, why
from builders.planning.known import RepositoryKnown
from builders.planning.options import pairs
from builders.planning.report import change_line
from builders.planning.request import Request
from builders.planning.wanted import Wanted
from builders.toolchains.elsewhere import Places
from builders.weights.mode import mode_of
from zoo.client.host import installed
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.manifest import Manifest
from zoo.schema.targets import Arch
from zoo.util.errors import UsageError
from zoo.util.names import perhaps


def differences(
    repository: Repository, manifest: Manifest, label: str, options: argparse.Namespace
) -> Iterator[str]:
    """Yields what would be done for a target, and the fields of its keys that differ.

    Args:
        repository: The repository.
        manifest: The model's current manifest.
        label: The target's label.
        options: ``calibration`` and ``builder``, as ``make zoo`` takes them.

    Raises:
        UsageError: Nothing is published for that target.
    """
    index = repository.model_index(manifest.id)
    entry = _published(manifest.id, index, label)
    record = repository.listed_record(manifest.id, entry)
    toolchain = installed(record.inputs.toolchain.kind) or record.inputs.toolchain
    archs = tuple(Arch(name) for name in record.inputs.archs)
    folder = options.calibration
    request = Request(
        manifests={manifest.id: manifest},
        manifest_dir=Path(options.manifests),
        places=Places(
            lines=(dict.fromkeys(archs, toolchain),), elsewhere=frozenset(archs), here=frozenset()
        ),
        precisions=(record.inputs.precision,),
        weights=mode_of(repository.kind()),
        calibration=from_folder(Path(folder), print) if folder else shipped(),
        failures=Path("_failures"),
        builder=pairs(options.builder),
    )
    known = RepositoryKnown(repository, manifest.id, index, Failures(repository))
    decider = Decider(manifest, request, known)
    decider.inputs.identify()
    wanted = Wanted(archs=archs, toolchain=toolchain, precision=record.inputs.precision)
    yield f"published {record.created}, build key {record.key}"
    yield from lines_of(decider.engine(wanted))


def lines_of(decision: Decision) -> Iterator[str]:
    """Yields a decision as lines: what is done, why, and the fields that differ."""
    if decision.cause is Cause.PUBLISHED:
        yield "nothing differs: there is nothing to build"
        return
    yield f"{ACTION_FACTS[decision.action].title}: {decision.label}: {why(decision)}"
    yield from map(change_line, decision.changed)


def _published(model: str, index: ModelIndex | None, label: str) -> EngineEntry:
    labels = {name: entry for entry in (index.current if index else ()) for name in entry.targets}
    if label not in labels:
        raise UsageError(
            f"{model}: nothing is published for {label}.{perhaps(label, list(labels))}",
            hint=f"published: {', '.join(labels) or 'nothing'}; make zoo builds what is missing",
        )
    return labels[label]
