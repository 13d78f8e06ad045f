"""``python -m builders.studies PRECISION``: our lower precisions beside others' on each model.

Run in a checkout; ``builders/studies/modelopt.py`` says how ModelOpt's environment is made. What is
found out of a model is kept in the study's folder, so that a run that was broken off goes on; the
results that are written are those of all models in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from builders.cli_options import chosen_manifests
from builders.photos import GOLDEN_COUNT
from builders.studies.modelopt import ModelOpt
from builders.studies.result import Row, Studied, Studies, look
from builders.studies.subject import Subject, prepare
from builders.studies.table import to_markdown
from builders.studies.ways import WAYS
from zoo.cli import Parser, add_arguments, run_cli
from zoo.cli_support import output_file
from zoo.errors import PrecisionError, RunError, UsageError, ZooError
from zoo.files import whole
from zoo.manifest import read_manifests

Say = Callable[[str], None]


def fp16(options: argparse.Namespace) -> int:
    """Compares our fp16 with PyTorch's .half() and ModelOpt's AutoCast."""
    return _study("fp16", options)


def int8(options: argparse.Namespace) -> int:
    """Compares where we quantise with where ModelOpt does."""
    return _study("int8", options)


def _study(precision: Studied, options: argparse.Namespace) -> int:
    output = output_file(options.output) if options.output else None
    chosen, bad = chosen_manifests(options)
    for error in bad.values():
        raise error
    modelopt, failed = ModelOpt(options.modelopt_python), 0
    for name, manifest in chosen.items():
        kept = options.folder / name / f"{precision}.json"
        if kept.is_file():
            continue

        def say(note: str, name: str = name) -> None:
            print(f"{name}: {note}", file=sys.stderr, flush=True)

        try:
            folder = options.folder / name
            subject = prepare(manifest, Path(options.manifests), folder, say, options.photos)
            found = study(subject, precision, modelopt, say)
        except ZooError as error:
            say(f"FAILED {error}")
            failed += 1
            continue
        with whole(kept) as partial:
            partial.write_text(found.model_dump_json(indent=2), encoding="utf-8")
    everything = [_read(path) for path in sorted(options.folder.glob(f"*/{precision}.json"))]
    names = list(read_manifests(Path(options.manifests))[0])
    text = to_markdown(precision, everything, names, modelopt.version)
    if output:
        with whole(output) as partial:
            partial.write_text(text, encoding="utf-8")
    print(text)
    return 1 if failed else 0


def _read(path: Path) -> Studies:
    """Returns what was found out of a model before.

    Raises:
        UsageError: The file is damaged, or another version's.
    """
    try:
        return Studies.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UsageError(
            f"{path} is no study of this version",
            hint="remove it, and its model is studied again",
        ) from error


def study(subject: Subject, precision: Studied, modelopt: ModelOpt, say: Say) -> Studies:
    """Puts a model through every way, one after the other.

    Args:
        subject: The model.
        precision: That the ways give.
        modelopt: Where it is installed.
        say: Takes what is being done.
    """
    rows = []
    for name, way in WAYS[precision].items():
        say(name)
        started = time.perf_counter()
        try:
            model, note = way(subject, modelopt)
        except (PrecisionError, RunError) as error:
            rows.append(Row(way=name, note=f"none: {error.message}"))
            continue
        seconds = round(time.perf_counter() - started, 1)
        row = look(subject, precision, name, model)
        rows.append(row.model_copy(update={"seconds": seconds, "note": note}))
    return Studies(
        model=subject.manifest.id,
        precision=precision,
        seeded=subject.seeded,
        photos=subject.photos,
        rows=tuple(rows),
    )


def main() -> int:
    """Entry point of ``python -m builders.studies``."""
    parser = Parser(prog="python -m builders.studies", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="PRECISION", parser_class=Parser)
    for name, command in (("fp16", fp16), ("int8", int8)):
        added = add_arguments(commands, name, command)
        added.add_argument("--models", default="", help="ids, globs or families")
        added.add_argument("--manifests", default="manifests")
        added.add_argument("--modelopt-python", type=Path, required=True, help="has ModelOpt")
        added.add_argument(
            "--photos", type=int, default=GOLDEN_COUNT, choices=range(2, GOLDEN_COUNT + 1),
            metavar="N", help=f"golden photos that are looked at, of {GOLDEN_COUNT}",
        )  # fmt: skip
        added.add_argument("--folder", type=Path, default=Path("_studies"), help="what is kept")
        added.add_argument("-o", "--output", help="file for the results, as Markdown")
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
