"""``zoo-farm plan``: what a run would do, and why. Nothing is done or written."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders import weights
from builders.backends import check_options
from builders.calibration import from_folder, shipped
from builders.cli_executor import add_executor, add_limits, choose_executor, runs_here
from builders.cli_options import STORE_HELP, chosen_manifests, pairs, words
from builders.environment import toolchains_of
from builders.look import Wish
from builders.places import Places, find_places, offered_places
from builders.plan import check_request
from builders.planned import FarmPlan, matrix_line, to_text
from builders.planning import plan_farm
from builders.toolchain import default_archs
from zoo.cli import add_arguments
from zoo.index import ModelIndex
from zoo.machine import installed
from zoo.repository import Repository
from zoo.stores import open_store
from zoo.target import Arch, RuntimeLine, parse_precision


def add_commands(commands: Any) -> None:
    """Adds them to a parser's subcommands."""
    told = add_arguments(commands, "plan", plan)
    add_wish(told)
    add_executor(told)
    add_limits(told)
    told.add_argument("--store", default="", help=STORE_HELP)
    shown = told.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="the whole plan, for machines")
    shown.add_argument("--matrix", action="store_true", help="the work, a GitHub matrix")


def add_wish(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what is wanted, as ``zoo`` takes them."""
    parser.add_argument("--gpu", default="", help="architectures: cpu, sm75 ... sm120")
    parser.add_argument("--trt", default="", help="runtime lines: rtx1.7 ...")
    parser.add_argument("--models", default="", help="names, globs or families")
    parser.add_argument("--precision", default="", help="fp32, bf16, fp16, int8")
    parser.add_argument("--calibration", default="", help="folder of photos (default: shipped)")
    parser.add_argument("--weights", default="", help="manifest, or seeded for a dry run")
    parser.add_argument("--builder", default="", help="builder options: NAME=VALUE ...")
    parser.add_argument("--builder-python", default="", help="the Python that builds and verifies")


def plan(options: argparse.Namespace) -> int:
    """Says what is published, what would be built and why, and what that takes."""
    started = time.perf_counter()
    made = plan_of(options)
    if options.json:
        print(made.to_json())
    elif options.matrix:
        print(matrix_line(made))
        for note in made.notes:
            print(note, file=sys.stderr)
        if not made.work:
            print("nothing to do: the matrix is empty", file=sys.stderr)
    else:
        print("\n".join(to_text(made)))
        seconds = time.perf_counter() - started
        print(f"{made.store}: {len(made.engines)} engines looked at in {seconds:.2f} s")
    return 0


def plan_of(options: argparse.Namespace) -> FarmPlan:
    """Plans what the options of ``zoo`` ask for."""
    mode = weights.parse_mode(options.weights or "manifest")
    store = options.store or ("_repository-seeded" if mode == "seeded" else "_repository")
    manifests, broken = chosen_manifests(options)
    asked = [Arch.parse(name) for name in words(options.gpu)]
    chosen = None if runs_here(options) else choose_executor(options, asked)
    archs = chosen.archs if chosen else asked or default_archs()
    lines = [RuntimeLine.parse(name) for name in words(options.trt)]
    line = lines[0] if len(lines) == 1 else None
    precisions = tuple(parse_precision(word, archs, line) for word in words(options.precision))
    python, folder = options.builder_python, options.calibration
    find = toolchains_of(python).get if python else installed
    images = from_folder(Path(folder), lambda said: None) if folder else shipped()
    wish = Wish(
        manifests=manifests,
        precisions=precisions or None,
        weights=mode,
        calibration=images.name,
        builder=pairs(options.builder),
    )

    def places(models: Sequence[ModelIndex]) -> Places:
        if chosen is None:
            found = find_places(archs, lines, models, find=find)
        else:
            found = offered_places(archs, lines, chosen.choose, chosen.executor.runs_on)
        for toolchains in found.lines if len(found.lines) == 1 else ():
            check_request({a: chain.line for a, chain in toolchains.items()}, precisions)
            check_options(toolchains.values(), wish.builder)
        return found

    try:
        return plan_farm(Repository(open_store(store)), wish, places, broken)
    finally:
        if chosen is not None:
            chosen.executor.stop()
