"""Speed: times engines of a study's networks on this machine's GPU.

``python -m benchmarks.studies int8 --keep`` writes the networks, in a Python with torch; ``python
-m benchmarks.studies.speed time FOLDER`` builds and times their engines in the runtime's Python,
which may be another (TensorRT 8.6 needs Python 3.10): this module imports no other of a study.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from builders.backends import get_backend
from builders.jobs.progress import silent
from builders.planning.options import words
from builders.verify.benchmark import benchmark
from builders.verify.metrics import compare_rows
from zoo.cli.main import Parser, add_arguments, run_cli
from zoo.client.host import describe_machine, installed, local_archs
from zoo.inference.preprocess import normalise
from zoo.runtime import Session, open_session
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange, Preprocess
from zoo.schema.precisions import Precision
from zoo.schema.runtimes import Runtime
from zoo.util.digest import sha256_file
from zoo.util.errors import TargetError, UsageError, ZooError
from zoo.util.files import whole

if TYPE_CHECKING:
    import onnx

_PLACES = "a study's folder, or .speed.json files in it"


class Timed(BaseModel):
    """A network and the measurements of its engine.

    Attributes:
        model: Manifest id.
        precision: Precision of the network.
        way: Name of the method that made it.
        parameters: Number of its weights.
        preprocess: Preprocessing of the photos.
        seconds: Duration of the build; None before it.
        engine_bytes: Size of the engine.
        worst_cosine: Smallest cosine of the engine's features of golden photos with PyTorch's.
        rows: Results of :func:`builders.verify.benchmark.benchmark`.
        layers: Number of the engine's layers by type.
        note: Why there is no engine.
        machine: Machine that it was timed on.
        runtime: Runtime that built it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    precision: Precision
    way: str
    parameters: int
    preprocess: Preprocess
    seconds: float | None = None
    engine_bytes: int = 0
    worst_cosine: float | None = None
    rows: tuple[dict[str, Any], ...] = ()
    layers: dict[str, int] = {}
    note: str = ""
    machine: dict[str, Any] = {}
    runtime: str = ""


def keep(
    folder: Path, preprocess: Preprocess, precision: Precision, way: str, model: onnx.ModelProto
) -> None:
    """Writes a network for :func:`time_engine`, and its description next to it.

    Args:
        folder: Folder named after the model, with its ``golden.npz``.
        preprocess: Preprocessing of the model.
        precision: Precision of the network.
        way: Name of the method that made it.
        model: The network.
    """
    import onnx

    stem = f"{precision}-{re.sub('[^a-z0-9]+', '-', way.lower()).strip('-')}"
    onnx.save(model, folder / f"{stem}.onnx")
    parameters = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    what = Timed(
        model=folder.name, precision=precision, way=way, parameters=parameters,
        preprocess=preprocess,
    )  # fmt: skip
    _write(folder / f"{stem}.speed.json", what)


def time_engine(network: Path, what: Timed, batches: Sequence[int]) -> Timed:
    """Builds an engine for this GPU with the installed TensorRT, times it and compares features.

    It has one optimisation profile, tuned for the largest batch. The engine is kept next to the
    network, so that one built on a busy machine can be timed again on an idle one.

    Args:
        network: The ONNX.
        what: Its description.
        batches: Batch sizes to time, smallest first.

    Raises:
        TargetError: There is no GPU or no TensorRT.
        BuildError: The build fails.
    """
    toolchain, archs = installed(Runtime.TRT), local_archs()
    if toolchain is None or not archs:
        raise TargetError(
            "an NVIDIA GPU and TensorRT are needed to time engines",
            hint="zoo-farm targets names the package and the driver of each line",
        )
    backend = get_backend(Runtime.TRT)
    inputs = BuildInputs(
        model=what.model,
        onnx=sha256_file(network),
        preprocess=what.preprocess,
        archs=(archs[0].name,),
        precision=what.precision,
        toolchain=toolchain,
        profiles=(BatchRange(min=batches[0], opt=batches[-1], max=batches[-1]),),
        options=backend.options(toolchain, {"timing_cache": "no"}).model_dump(mode="json"),
    )
    engine = network.with_name(f"{network.stem}-{inputs.key[:12]}.engine")
    if not engine.is_file():
        started = time.perf_counter()
        with whole(engine) as partial:
            facts = backend.build(network, inputs, partial, parameters=what.parameters)
        assert facts.values.inspector is not None
        built = {
            "seconds": round(time.perf_counter() - started, 1),
            "engine_bytes": engine.stat().st_size,
            "layers": facts.values.inspector.layers,
        }
        what = what.model_copy(update=built)
    with open_session(engine, inputs) as session:
        for batch in batches:
            session.features(_noise(batch, session.input_shape))
        rows = benchmark(session, tuple(batches), silent)
        cosine = worst_cosine(session, network.with_name("golden.npz"), what.preprocess)
    return what.model_copy(
        update={
            "rows": rows,
            "worst_cosine": cosine,
            "note": "",
            "machine": describe_machine(),
            "runtime": f"TensorRT {toolchain.version}",
        }
    )


def _noise(batch: int, shape: Sequence[int]) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)


def worst_cosine(session: Session, golden: Path, preprocess: Preprocess) -> float | None:
    """Returns the smallest cosine of an engine's golden features with PyTorch's; None for NaN.

    Args:
        session: The open engine, which must support a batch of all golden photos.
        golden: The golden file.
        preprocess: Preprocessing of the photos.
    """
    import numpy as np

    with np.load(golden) as arrays:
        images, expected = arrays["images"], arrays["features"]
    actual = session.features(normalise(images, preprocess))
    return compare_rows(actual, expected, expected).worst_cosine


def time_all(options: argparse.Namespace) -> int:
    """Times networks that a study kept; builds missing engines."""
    failed = 0
    batches = sorted(int(word) for word in words(options.batches))
    for path in kept(options.places):
        what = described(path)
        network = path.with_name(path.name.removesuffix(".speed.json") + ".onnx")
        print(f"{what.model}: {what.precision}, {what.way}", file=sys.stderr, flush=True)
        try:
            what = time_engine(network, what, batches)
        except ZooError as error:
            print(f"FAILED {error}", file=sys.stderr, flush=True)
            what, failed = what.model_copy(update={"note": error.message}), failed + 1
        _write(path, what)
    return 1 if failed else 0


def table(options: argparse.Namespace) -> int:
    """Prints the times as Markdown, relative to our fp16 engine of the same model."""
    print(to_markdown([described(path) for path in kept(options.places)]))
    return 0


def to_markdown(timed: Sequence[Timed]) -> str:
    """Returns a table with one row per network and batch.

    Args:
        timed: The networks; the row of one without times has the reason.
    """
    base = {
        (network.model, row["batch"]): row["latency_ms"]
        for network in timed
        if network.precision == Precision.FP16 and network.way == "ours"
        for row in network.rows
    }
    lines = [
        "| model | precision | way | batch | ms | times as fast as fp16 | worst cosine | build s "
        "| MiB |  |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for network in sorted(timed, key=lambda timed: (timed.model, timed.precision, timed.way)):
        start = f"| {network.model} | {network.precision} | {network.way}"
        if not network.rows:
            lines.append(f"{start} |  |  |  |  |  |  | {network.note or 'not timed'} |")
        cosine = "" if network.worst_cosine is None else f"{network.worst_cosine:.6f}"
        for row in network.rows:
            batch, latency = row["batch"], row["latency_ms"]
            base_ms = base.get((network.model, batch))
            ratio = "" if base_ms is None else f"{base_ms / latency:.2f}"
            lines.append(
                f"{start} | {batch} | {latency:.3g} | {ratio} | {cosine} | {network.seconds:.0f} | "
                f"{network.engine_bytes / 2**20:.1f} |  |"
            )
    where = {
        f"{network.runtime}, {network.machine['gpu']['name']}" for network in timed if network.rows
    }
    return "\n".join([*lines, "", f"{'; '.join(sorted(where)) or 'Nothing was timed'}."])


def kept(places: Sequence[Path]) -> list[Path]:
    """Returns the description files that :func:`keep` wrote, from folders or given by name.

    Raises:
        UsageError: There are none.
    """
    files = [
        path
        for place in places
        for path in ([place] if place.is_file() else sorted(place.rglob("*.speed.json")))
    ]
    if not files:
        raise UsageError(
            f"{', '.join(map(str, places))}: no networks of a study",
            hint="python -m benchmarks.studies int8 --keep writes them to its folder",
        )
    return files


def described(path: Path) -> Timed:
    """Returns the description that :func:`keep` or :func:`time_all` wrote."""
    return Timed.model_validate_json(path.read_text(encoding="utf-8"))


def _write(path: Path, what: Timed) -> None:
    with whole(path) as partial:
        partial.write_text(what.model_dump_json(indent=1), encoding="utf-8")


def main() -> int:
    """Entry point of ``python -m benchmarks.studies.speed``."""
    parser = Parser(prog="python -m benchmarks.studies.speed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    timing = add_arguments(commands, "time", time_all)
    timing.add_argument("places", nargs="+", type=Path, help=_PLACES)
    timing.add_argument("--batches", default="1 64 256", help="batch sizes")
    add_arguments(commands, "table", table).add_argument(
        "places", nargs="+", type=Path, help=_PLACES
    )
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
