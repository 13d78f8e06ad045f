"""Explain: which input of an engine differs from what is published."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import inputs, plan, weights
from builders.calibration import from_folder, shipped
from builders.cli_options import pairs
from builders.inputs import Form
from builders.order import build_inputs
from zoo.errors import UsageError
from zoo.key import ExportInputs
from zoo.machine import installed
from zoo.manifest import Manifest
from zoo.names import perhaps
from zoo.record import BuildRecord, ExportRecord
from zoo.repository import Repository
from zoo.target import Arch


def differences(
    repository: Repository, manifest: Manifest, label: str, options: argparse.Namespace
) -> Iterator[str]:
    """Yields what would be built anew for a target, and for which input.

    Args:
        repository: What is published.
        manifest: The model, as it is now.
        label: Of the target.
        options: ``calibration`` and ``builder``, as ``make zoo`` takes them.

    Raises:
        UsageError: Nothing is published for that target.
    """
    record = _published(repository, manifest.id, label)
    export = repository.export(manifest.id, record.export_key)
    seeded = repository.kind() == "dry-run"
    identity = weights.identify(manifest, "seeded" if seeded else "manifest")
    folder = options.calibration
    images = from_folder(Path(folder), print) if folder else shipped()
    form = Form.for_line(record.inputs.toolchain.line, record.inputs.precision)
    if export is not None and export.inputs.lowering is not None:
        form = replace(form, safety=export.inputs.lowering.safety)
    now = inputs.export_inputs(manifest, identity, form, images.name)
    yield f"published {record.created}, build key {record.key}"
    changed = list(_export_differences(export, now))
    if changed:
        yield "the ONNX would be exported anew:"
        yield from changed
    toolchain = installed(record.inputs.toolchain.kind) or record.inputs.toolchain
    if export is not None:
        archs = tuple(Arch(name) for name in record.inputs.archs)
        wanted = plan.Wanted(archs=archs, toolchain=toolchain, precision=record.inputs.precision)
        build = build_inputs(manifest, wanted, export, pairs(options.builder))
        built = list(compare(record.inputs.model_dump(mode="json"), build.model_dump(mode="json")))
        if built:
            yield "the engine would be built anew:"
            yield from built
        changed += built
    if not changed:
        yield "nothing differs: there is nothing to build"


def compare(published: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yields the fields in which two JSON values differ, each with both values."""
    if isinstance(published, dict) and isinstance(now, dict):
        for name in sorted({*published, *now}):
            below = f"{path}.{name}" if path else name
            yield from compare(published.get(name), now.get(name), below)
    elif published != now:
        yield f"  {path}: {published!r} is published, {now!r} is what it would be"


def _published(repository: Repository, model: str, label: str) -> BuildRecord:
    index = repository.model_index(model)
    labels = {name: entry for entry in (index.current if index else ()) for name in entry.targets}
    if label not in labels:
        raise UsageError(
            f"{model}: nothing is published for {label}.{perhaps(label, list(labels))}",
            hint=f"there is {', '.join(labels) or 'nothing'}; make zoo builds what is missing",
        )
    return repository.listed_record(model, labels[label])


def _export_differences(export: ExportRecord | None, now: ExportInputs) -> Iterator[str]:
    if export is None:
        yield "  its export is gone from the repository"
    elif export.inputs != now:
        yield from compare(export.inputs.model_dump(mode="json"), now.model_dump(mode="json"))
