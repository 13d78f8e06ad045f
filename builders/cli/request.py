"""Turns the options of ``plan``, ``zoo`` and ``nightly`` into a request: the one place for all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builders.backends import check_options
from builders.cli import executor
from builders.cli.executor import Chosen
from builders.cli.options import chosen_manifests
from builders.cli.timm_refusals import refused_by_timm
from builders.photos.calibration import from_folder, shipped
from builders.photos.labelled import LabelledSet, read_labelled
from builders.planning.options import pairs, words
from builders.planning.request import Request
from builders.planning.wanted import check_request
from builders.publish.signer import check_keys
from builders.toolchains.elsewhere import Places, find_places, offered_places
from builders.toolchains.interpreter import toolchains_of
from builders.weights.mode import MODE_FACTS, WeightsMode, parse_mode
from zoo.catalog.gpus import read_archs
from zoo.client.host import installed
from zoo.schema.published import AnyModel
from zoo.schema.targets import Arch, RuntimeLine, Toolchain, gpu_lines, parse_precision
from zoo.stores import folder_of
from zoo.util.errors import ManifestError, UsageError

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The selection made by the options of ``plan``, ``zoo`` and ``nightly``.

    Attributes:
        request: Complete but for its places: those of a plan depend on what is published.
        broken: Errors of the manifests that can't be read.
        chosen: Where jobs run.
        lines: Runtime lines that ``TRT=`` names.
        store: URL of the repository.
        site: Folder of the catalog.
    """

    request: Request
    broken: dict[str, ManifestError]
    chosen: Chosen
    lines: tuple[RuntimeLine, ...]
    store: str
    site: Path


def read_request(options: argparse.Namespace, say: Say, *, plans: bool = False) -> Selected:
    """Reads and checks the options.

    Args:
        options: Options of ``zoo``, as in the table of options.
        say: Called with messages for the user.
        plans: Whether nothing will be built: ``TRT=`` may then name several lines.

    Raises:
        ZooError: An option is wrong; the same error for each command.
    """
    mode = parse_mode(options.weights or WeightsMode.MANIFEST)
    suffix = MODE_FACTS[mode].suffix
    store = options.store or f"_repository{suffix}"
    site = Path(options.site or f"_site{suffix}")
    if site.exists() and not site.is_dir():
        raise UsageError(f"SITE={site} is a file", hint="the catalog goes into a folder")
    seeded = MODE_FACTS[mode].kind.seeded
    manifests, broken = chosen_manifests(options, locks=not seeded)
    requested = read_archs(options.gpu)
    lines = tuple(RuntimeLine.parse(name) for name in words(options.trt))
    if len(lines) > 1 and not plans:
        raise UsageError(
            f"TRT={options.trt} names several lines", hint="only make plan supports several"
        )
    labelled = _labelled(options, mode, say)
    check_keys(store, options.keys)
    chosen = executor.choose_executor(options, requested)
    archs, line = chosen.archs, lines[0] if len(lines) == 1 else None
    precisions = tuple(parse_precision(word, archs, line) for word in words(options.precision))
    if line in gpu_lines() and not any(arch.is_cpu for arch in archs):
        # Fails for a precision that the line does not support, whatever is installed here.
        check_request(dict.fromkeys(archs, line), precisions)
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
        refused=refused_by_timm(manifests),
    )
    return Selected(
        request=request, broken=broken, chosen=chosen, lines=lines, store=store, site=site
    )


def places_to_run(selected: Selected) -> Places:
    """Returns the toolchain that builds for each architecture of a run."""
    chosen = selected.chosen
    line = selected.lines[0] if selected.lines else None
    toolchains = chosen.choose(chosen.archs, line)
    _check(toolchains, selected.request)
    return Places(
        lines=(toolchains,), elsewhere=frozenset(), here=frozenset(), verifies_on=chosen.runs_on
    )


def places_to_plan(
    selected: Selected, options: argparse.Namespace, models: Sequence[AnyModel]
) -> Places:
    """Finds the toolchains of a plan, here or on other machines.

    Args:
        selected: What is planned.
        options: The options that selected it.
        models: The published indexes: for a GPU that this machine lacks, a plan assumes the lines
            that were published for it.
    """
    chosen = selected.chosen
    if executor.runs_here(options):
        python = options.builder_python
        find = toolchains_of(python).get if python else installed
        places = find_places(chosen.archs, selected.lines, models, find=find)
    else:
        places = offered_places(chosen.archs, selected.lines, chosen.choose, chosen.runs_on)
    for toolchains in places.lines if len(places.lines) == 1 else ():
        _check(toolchains, selected.request)
    return places


def _check(toolchains: Mapping[Arch, Toolchain], request: Request) -> None:
    """Raises UsageError if a precision or builder option does not suit the toolchains."""
    lines = {arch: toolchain.line for arch, toolchain in toolchains.items()}
    check_request(lines, request.precisions or ())
    check_options(toolchains.values(), dict(request.builder))


def failures_beside(store: str) -> Path:
    """Returns the folder that keeps jobs and logs of failures."""
    return folder_beside(store, "_failures")


def folder_beside(store: str, name: str) -> Path:
    """Returns a folder beside a local repository, or in the current one if it is elsewhere."""
    folder = folder_of(store)
    return (Path() if folder is None else folder.parent) / name


def _labelled(options: argparse.Namespace, mode: WeightsMode, say: Say) -> LabelledSet | None:
    """Returns the photos for a linear probe, or None for no probe.

    Raises:
        UsageError: The photos don't exist, or jobs run on machines that don't have them.
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
        say("labelled: ignored: seeded weights have no accuracy to lose")
        return None
    return labelled
