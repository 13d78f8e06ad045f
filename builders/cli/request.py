"""The one place where options become a request, for ``plan``, ``zoo`` and ``nightly`` alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builders.backends import check_options
from builders.cli import executor
from builders.cli.executor import Chosen
from builders.cli.options import chosen_manifests
from builders.photos.calibration import from_folder, shipped
from builders.photos.labelled import LabelledSet, read_labelled
from builders.planning.options import pairs, words
from builders.planning.request import Request
from builders.planning.wanted import check_request
from builders.publish.signer import check_keys
from builders.toolchains.elsewhere import Places, find_places, offered_places
from builders.toolchains.interpreter import toolchains_of
from builders.weights.mode import MODE_FACTS, WeightsMode, parse_mode
from zoo.client.host import installed
from zoo.schema.index import ModelIndex
from zoo.schema.targets import Arch, RuntimeLine, gpu_lines, parse_precision
from zoo.util.errors import ManifestError, UsageError

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options of ``plan``, ``zoo`` and ``nightly`` ask for.

    Attributes:
        request: All but the places, which a plan finds by what is published.
        broken: What is wrong with the manifests that can't be read.
        chosen: Where jobs run.
        lines: What ``TRT=`` says.
        store: URL of the repository.
        site: Folder of the catalog.
    """

    request: Request
    broken: dict[str, ManifestError]
    chosen: Chosen
    lines: tuple[RuntimeLine, ...]
    store: str
    site: Path


def ask(options: argparse.Namespace, say: Say, *, plans: bool = False) -> Asked:
    """Reads and checks the options.

    Args:
        options: As the table of options has them.
        say: Takes what the user should know.
        plans: Whether nothing is to be built: ``TRT=`` may then name several lines.

    Raises:
        ZooError: One of them is wrong; the same for each command.
    """
    mode = parse_mode(options.weights or WeightsMode.MANIFEST)
    suffix = MODE_FACTS[mode].suffix
    store = options.store or f"_repository{suffix}"
    site = Path(options.site or f"_site{suffix}")
    if site.exists() and not site.is_dir():
        raise UsageError(f"SITE={site} is a file", hint="the catalog goes into a folder")
    manifests, broken = chosen_manifests(options)
    asked = [Arch.parse(name) for name in words(options.gpu)]
    lines = tuple(RuntimeLine.parse(name) for name in words(options.trt))
    if len(lines) > 1 and not plans:
        raise UsageError(f"TRT={options.trt} names several lines", hint="make plan takes several")
    labelled = _labelled(options, mode, say)
    check_keys(store, options.keys)
    chosen = executor.choose_executor(options, asked)
    archs, line = chosen.archs, lines[0] if len(lines) == 1 else None
    precisions = tuple(parse_precision(word, archs, line) for word in words(options.precision))
    if line in gpu_lines() and not any(arch.is_cpu for arch in archs):
        check_request(dict.fromkeys(archs, line), precisions)  # whatever there is to build with
    request = Request(
        manifests=manifests,
        manifest_dir=Path(options.manifests),
        places=Places(lines=(), elsewhere=frozenset(), here=frozenset()),
        precisions=precisions or None,
        weights=mode,
        calibration=from_folder(Path(options.calibration), say)
        if options.calibration
        else shipped(),
        failures=failures_beside(store),
        builder=pairs(options.builder),
        labelled=labelled,
        retry=options.retry,
    )
    return Asked(request=request, broken=broken, chosen=chosen, lines=lines, store=store, site=site)


def places_to_run(asked: Asked) -> Places:
    """Returns what builds for each architecture of a run: what is there."""
    chosen = asked.chosen
    line = asked.lines[0] if asked.lines else None
    toolchains = chosen.choose(chosen.archs, line)
    _check(toolchains, asked.request)
    return Places(
        lines=(toolchains,), elsewhere=frozenset(), here=frozenset(), proves=chosen.runs_on
    )


def places_to_plan(
    asked: Asked, options: argparse.Namespace
) -> Callable[[Sequence[ModelIndex]], Places]:
    """Returns what finds what builds for each architecture, there or on other machines."""
    chosen = asked.chosen

    def places(models: Sequence[ModelIndex]) -> Places:
        if executor.runs_here(options):
            python = options.builder_python
            find = toolchains_of(python).get if python else installed
            found = find_places(chosen.archs, asked.lines, models, find=find)
        else:
            found = offered_places(chosen.archs, asked.lines, chosen.choose, chosen.runs_on)
        for toolchains in found.lines if len(found.lines) == 1 else ():
            _check(toolchains, asked.request)
        return found

    return places


def _check(toolchains: object, request: Request) -> None:
    assert isinstance(toolchains, dict)
    lines = {arch: chain.line for arch, chain in toolchains.items()}
    check_request(lines, request.precisions or ())
    check_options(toolchains.values(), dict(request.builder))


def failures_beside(store: str) -> Path:
    """Returns the folder that keeps jobs and logs of failures."""
    return (Path() if "://" in store else Path(store).parent) / "_failures"


def _labelled(options: argparse.Namespace, mode: WeightsMode, say: Say) -> LabelledSet | None:
    """Returns the photos of a linear probe, None for none.

    Raises:
        UsageError: There are no such photos, or the jobs run where they are not.
    """
    if not options.labelled:
        return None
    if not executor.runs_here(options):
        raise UsageError(
            f"LABELLED= stays on this machine, and EXECUTOR={options.executor} runs jobs elsewhere",
            hint="leave EXECUTOR= out; or run zoo-farm accuracy --labelled later",
        )
    labelled = read_labelled(Path(options.labelled), say)
    if MODE_FACTS[mode].kind.seeded:
        say("labelled: left out: seeded weights have no accuracy to lose")
        return None
    return labelled
