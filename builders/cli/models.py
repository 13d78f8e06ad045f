"""``zoo-farm models``: the page of all manifests, ``docs/models.md``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from typing_extensions import assert_never

from builders.measure.beside_timm import BesideTimm, read_rows
from builders.paths import ROOT
from builders.weights.locks import read_locks, with_lock
from builders.weights.standing import DIGEST_FACTS
from zoo.cli.command import add_arguments
from zoo.schema.licences import allowed_licences
from zoo.schema.manifest import (
    AnyWeights,
    FileWeights,
    HubWeights,
    Manifest,
    PypiWeights,
    load_manifests,
)
from zoo.util.errors import UsageError
from zoo.util.loading import read_toml
from zoo.util.names import counted

MEASURED, UNSUPPORTED = "docs/results/models.json", "docs/results/unsupported.toml"

_INTRODUCTION = """\
# Models

Made by `zoo-farm models > docs/models.md` from the manifests, their lock and
[measurements](results/models.md); a test fails if this page is out of date. How to get another of
timm's models: [Add a model](how-to/add-a-model.md).

- **licence**: in brackets if it does not allow publishing engines. `make zoo` leaves these models
  out and says so; dry runs (`WEIGHTS=seeded`) build them.
- **weights**: `pinned` states their SHA-256 and who records it; `unlocked` ones are locked on first
  use, by `make zoo` or `make lock`.
- **measured**: engines that were built, and the worst cosine of their features against timm's own
  transform and features on photos of odd sizes. Engines built for another GPU did not run. `seeded`
  weights are random: they show that the network is exported and built right, not how accurate its
  trained weights are.
"""


class Unsupported(BaseModel):
    """Networks that can't be built, and why.

    Attributes:
        name: timm's name, or a pattern of names.
        reason: Why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reason: str


_UNSUPPORTED = TypeAdapter(dict[str, list[Unsupported]])


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    add_arguments(commands, "models", models)


def models(options: argparse.Namespace) -> int:
    """Prints docs/models.md: manifests, their measurements, and models that can't work."""
    print(page(Path(options.manifests), ROOT), end="")
    return 0


def page(folder: Path, root: Path) -> str:
    """Returns the page in Markdown.

    Args:
        folder: The folder of manifests.
        root: The checkout, with the files of measurements.

    Raises:
        ZooError: A manifest, the lock or a file of measurements can't be read.
    """
    locks = read_locks(folder)
    manifests = [with_lock(manifest, locks) for manifest in load_manifests(folder).values()]
    measured: dict[str, list[BesideTimm]] = {}
    for row in read_rows(root / MEASURED):
        measured.setdefault(row.model, []).append(row)
    lines = [_INTRODUCTION, f"{counted(len(manifests), 'model')}.\n", *_table(manifests, measured)]
    lines += ["\n## What cannot work\n", *_cannot(read_unsupported(root / UNSUPPORTED))]
    return "\n".join(lines) + "\n"


def read_unsupported(path: Path) -> list[Unsupported]:
    """Reads the list of networks that can't be built.

    Raises:
        UsageError: The file is missing, or holds something else.
    """
    try:
        return _UNSUPPORTED.validate_python(read_toml(path))["network"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{path}: can't be read", hint="it is a list of [[network]] with name and reason"
        ) from error


def _table(
    manifests: Iterable[Manifest], measured: Mapping[str, list[BesideTimm]]
) -> Iterator[str]:
    yield "| model | timm | cut | width | input | licence | weights | measured |"
    yield "| --- | --- | --- | ---: | ---: | --- | --- | --- |"
    for manifest in manifests:
        backbone, rows = manifest.backbone, measured.get(manifest.id, [])
        licence = manifest.licence
        cells = (
            f"`{manifest.id}`: {manifest.catalog.title}",
            f"`{manifest.timm_name}`{_arguments(manifest)}",
            str(backbone.cut),
            f"{backbone.feature_dim:,}",
            manifest.preprocess.pixels,
            licence if licence in allowed_licences() else f"({licence})",
            _standing(manifest.weights),
            "; ".join(map(_measurement, rows)),
        )
        yield f"| {' | '.join(cells)} |"


def _arguments(manifest: Manifest) -> str:
    return "".join(f", {name} = {value}" for name, value in manifest.arguments.items())


def _standing(weights: AnyWeights) -> str:
    match weights:
        case HubWeights():
            if not weights.pinned:
                return "unlocked"
            return (
                f"pinned: {DIGEST_FACTS[weights.digest_from].words}"
                if weights.digest_from
                else ("pinned")
            )
        case PypiWeights():
            return f"pinned: PyPI {weights.package} {weights.version}"
        case FileWeights():
            return "pinned: a local file"
        case _:
            assert_never(weights)


def _measurement(row: BesideTimm) -> str:
    weights = ", seeded" if row.seeded else ""
    if row.cosine is None:
        return f"{row.targets}: {row.status}{weights}"
    return f"{row.targets}: {row.status}, {row.cosine:.6f}{weights}"


def _cannot(networks: Iterable[Unsupported]) -> Iterator[str]:
    yield "| weights of timm, or their licence | why |"
    yield "| --- | --- |"
    for network in networks:
        yield f"| `{network.name}` | {network.reason} |"
