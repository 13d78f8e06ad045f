"""``python -m benchmarks.studies PRECISION``: compares our lower precisions with other methods.

Run it in a checkout; ``benchmarks/studies/modelopt.py`` describes how to install ModelOpt. Results
are stored in the study's folder after each method, so that an interrupted run continues there; the
printed table has all models in the folder. ``python -m benchmarks.studies.speed`` times on a GPU
the networks that ``--keep`` stored.
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
    """Compares our placement of Q/DQ and choice of ranges with ONNX Runtime's and ModelOpt's."""
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
                manifest, Path(options.manifests), of_model, say, photo_count=options.photos,
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
    """Returns the stored results of a model.

    Raises:
        UsageError: The file is damaged or from another version.
    """
    try:
        return Studies.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UsageError(
            f"{path} is not a study of this version",
            hint="remove it to study its model again",
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
    """Converts a model by every method that has no result yet; returns all results.

    Args:
        subject: The model.
        precision: Precision to convert to.
        ways: Names of the methods.
        modelopt: The installed ModelOpt; None skips its methods.
        say: Called with progress messages.
        keep: Called with the name of each method and its network.
        kept: File for the results, written after each method.
        before: Results of an earlier run.
    """
    machine = describe_machine()
    where = f"{machine.cpu}, {machine.cores} cores"
    studies = before or Studies(
        model=subject.manifest.id,
        precision=precision,
        seeded=subject.seeded,
        photos=subject.photos,
    )
    for name in ways:
        if studies.row(name):
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
        studies = studies.with_row(row, modelopt.version if modelopt else "", where)
        with whole(kept) as partial:
            partial.write_text(studies.model_dump_json(indent=2), encoding="utf-8")
    return studies


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
            help="a Python with ModelOpt; without it, ModelOpt's methods are skipped",
        )  # fmt: skip
        added.add_argument(
            "--photos", type=int, default=GOLDEN_COUNT, choices=range(2, GOLDEN_COUNT + 1),
            metavar="N", help=f"number of golden photos to compare, of {GOLDEN_COUNT}",
        )  # fmt: skip
        added.add_argument(
            "--way", action="append", choices=WAYS[name],
            help="a method; repeat for several (default: all)",
        )  # fmt: skip
        added.add_argument(
            "--folder", type=Path, default=Path("_studies"), help="folder of results"
        )
        added.add_argument(
            "--dialect", default="dynamo-20", choices=DIALECTS,
            help="ONNX dialect (default: dynamo-20); TensorRT 8.6 reads torchscript-17",
        )  # fmt: skip
        added.add_argument(
            "--keep", action="store_true", help="keep each method's ONNX, to time it"
        )
        added.add_argument("-o", "--output", help="file for the results, as Markdown")
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
