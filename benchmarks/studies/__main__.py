"""``python -m benchmarks.studies PRECISION``: our lower precisions beside others' on each model.

Run in a checkout; ``benchmarks/studies/modelopt.py`` says how ModelOpt's environment is made. What
is found out of a model is kept in the study's folder, way by way, so that a run that was broken off
goes on; the results that are written are those of all models in it. ``python -m
benchmarks.studies.speed`` times on a GPU what ``--keep`` left there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from benchmarks.studies import speed
from benchmarks.studies.modelopt import ModelOpt
from benchmarks.studies.result import Row, Studied, Studies, look
from benchmarks.studies.subject import Subject, prepare
from benchmarks.studies.table import to_markdown
from benchmarks.studies.ways import WAYS
from builders.cli.options import chosen_manifests
from builders.photos.bundled import GOLDEN_COUNT
from builders.recipe.export_form import DIALECTS
from zoo.cli.main import Parser, add_arguments, run_cli
from zoo.cli.support import output_file
from zoo.client.host import describe_machine
from zoo.schema.manifest import Preprocess, read_manifests
from zoo.schema.precisions import Precision
from zoo.util.errors import PrecisionError, RunError, UsageError, ZooError
from zoo.util.files import whole

if TYPE_CHECKING:
    import onnx

Say = Callable[[str], None]
Keep = Callable[[str, "onnx.ModelProto"], None]


def fp16(options: argparse.Namespace) -> int:
    """Compares our fp16 with PyTorch's .half() and ModelOpt's AutoCast."""
    return _study(Precision.FP16, options)


def int8(options: argparse.Namespace) -> int:
    """Compares where we, ONNX Runtime and ModelOpt quantise, and how ranges are told."""
    return _study(Precision.INT8, options)


def _study(precision: Studied, options: argparse.Namespace) -> int:
    output = output_file(options.output) if options.output else None
    chosen, bad = chosen_manifests(options)
    for error in bad.values():
        raise error
    ways = options.way or list(WAYS[precision])
    modelopt, failed = ModelOpt(options.modelopt_python) if options.modelopt_python else None, 0
    folder = options.folder / options.dialect
    for name, manifest in chosen.items():
        of_model, kept = folder / name, folder / name / f"{precision}.json"

        def say(note: str, name: str = name) -> None:
            print(f"{name}: {note}", file=sys.stderr, flush=True)

        def keep(
            way: str,
            model: onnx.ModelProto,
            of_model: Path = of_model,
            preprocess: Preprocess = manifest.preprocess.plain,
        ) -> None:
            if options.keep:
                speed.keep(of_model, preprocess, precision, way, model)

        try:
            before = _read(kept) if kept.is_file() else None
            if before and all(before.row(way) for way in ways):
                continue
            subject = prepare(
                manifest, Path(options.manifests), of_model, say, judged_on=options.photos,
                dialect=DIALECTS[options.dialect], half=precision == Precision.FP16,
            )  # fmt: skip
            study(subject, precision, ways, modelopt, say, keep, kept, before)
        except ZooError as error:
            say(f"FAILED {error}")
            failed += 1
    everything = [_read(path) for path in sorted(folder.glob(f"*/{precision}.json"))]
    names = list(read_manifests(Path(options.manifests))[0])
    text = to_markdown(precision, everything, names)
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


def study(
    subject: Subject,
    precision: Studied,
    ways: Sequence[str],
    modelopt: ModelOpt | None,
    say: Say,
    keep: Keep,
    kept: Path,
    before: Studies | None = None,
) -> Studies:
    """Puts a model through every way that it has not been through, one after the other.

    Args:
        subject: The model.
        precision: That the ways give.
        ways: Their names.
        modelopt: Where it is installed; without it, its ways are left out.
        say: Takes what is being done.
        keep: Takes the name of each way and its network.
        kept: File for what is found, written after each way.
        before: What was found before.
    """
    machine = describe_machine()
    where = f"{machine.cpu}, {machine.cores} cores"
    found = before or Studies(
        model=subject.manifest.id,
        precision=precision,
        seeded=subject.seeded,
        photos=subject.photos,
    )
    for name in ways:
        if found.row(name):
            continue
        say(name)
        started = time.perf_counter()
        try:
            made = WAYS[precision][name].make(subject, modelopt)
            if made is None:
                continue
            seconds = round(time.perf_counter() - started, 1)
            keep(name, made[0])
            row = look(subject, precision, name, made[0])
            row = row.model_copy(update={"seconds": seconds, "note": made[1]})
        except (PrecisionError, RunError) as error:
            row = Row(way=name, note=f"none: {error.message}")
        found = found.with_row(row, modelopt.version if modelopt else "", where)
        with whole(kept) as partial:
            partial.write_text(found.model_dump_json(indent=2), encoding="utf-8")
    return found


def main() -> int:
    """Entry point of ``python -m benchmarks.studies``."""
    parser = Parser(prog="python -m benchmarks.studies", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="PRECISION", parser_class=Parser)
    precisions: dict[Studied, Callable[[argparse.Namespace], int]] = {
        Precision.FP16: fp16,
        Precision.INT8: int8,
    }
    for name, command in precisions.items():
        added = add_arguments(commands, name, command)
        added.add_argument("--models", default="", help="ids, globs or families")
        added.add_argument("--manifests", default="manifests")
        added.add_argument(
            "--modelopt-python", type=Path,
            help="has ModelOpt; without it, ModelOpt's ways are left out",
        )  # fmt: skip
        added.add_argument(
            "--photos", type=int, default=GOLDEN_COUNT, choices=range(2, GOLDEN_COUNT + 1),
            metavar="N", help=f"golden photos that are looked at, of {GOLDEN_COUNT}",
        )  # fmt: skip
        added.add_argument(
            "--way", action="append", choices=WAYS[name],
            help="one of the ways, again for several (default: all)",
        )  # fmt: skip
        added.add_argument("--folder", type=Path, default=Path("_studies"), help="what is kept")
        added.add_argument(
            "--dialect", default="dynamo-20", choices=DIALECTS,
            help="of the ONNX (default: dynamo-20); TensorRT 8.6 reads torchscript-17",
        )  # fmt: skip
        added.add_argument("--keep", action="store_true", help="keep each way's ONNX, for speed")
        added.add_argument("-o", "--output", help="file for the results, as Markdown")
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
