"""What portability costs: TensorRT engines of one network, for this GPU alone and for more.

``python -m benchmarks.studies fp16 --dialect torchscript-17 --keep`` writes the networks;
``python -m benchmarks.studies.portability FOLDER -o FILE`` builds and times their engines in the
runtime's Python, which may be another: this module imports no torch.

An engine is built for this architecture twice. Two builds of one network differ, so a form costs
something only where it differs from the first engine by more than the second one does. The first
build also pays for whatever a process does once; the others are comparable with each other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.studies.speed import Timed, described, kept, worst_cosine
from builders.backends import get_backend
from builders.planning.options import words
from builders.verify.spread import spread
from zoo.cli.main import Parser, run_cli
from zoo.client.host import describe_machine, installed, local_archs
from zoo.runtime import open_session
from zoo.runtime.base import DeviceTimed
from zoo.schema.intervals import Interval
from zoo.schema.keys import BuildInputs
from zoo.schema.manifest import BatchRange
from zoo.schema.measurements import MachineDescription
from zoo.schema.precisions import Precision
from zoo.schema.runtimes import Runtime
from zoo.schema.targets import Toolchain
from zoo.util.causes import cause_of
from zoo.util.digest import sha256_file
from zoo.util.errors import TargetError, UsageError, ZooError
from zoo.util.files import whole

OWN, AGAIN = "this architecture", "this architecture, built again"

FORMS: dict[str, dict[str, str]] = {
    OWN: {},
    "same compute capability": {"hardware_compatibility": "same_compute_capability"},
    "Ampere and later": {"hardware_compatibility": "ampere_plus"},
    "version-compatible": {"version_compatible": "true"},
    AGAIN: {},
}
"""Builder options of each form, in the order in which they are built."""

_ROUNDS = 12
_ROUND_MS = 40.0  # of each engine in a round, to time many short runs and few long ones
_MOST_RUNS = 50

Time = Callable[[int, int], Sequence[float]]
"""Runs an engine at a batch size so many times; returns the milliseconds of each run."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Turns(_Result):
    """Times of one engine at one batch size, in turns with the others of its network.

    Attributes:
        batch: Images per batch.
        ms: Median of the rounds' medians.
        ratio: Its time divided by the first engine's, the median over rounds.
        ratio_interval: Encloses the true median with 95%.
    """

    batch: int
    ms: float
    ratio: float
    ratio_interval: Interval | None


class Built(_Result):
    """An engine of a network.

    Attributes:
        form: A key of :data:`FORMS`.
        engine: File name; None if there is none.
        seconds: Duration of the build with the inspection of the engine.
        size: Bytes.
        worst_cosine: Smallest cosine of its features of golden photos with PyTorch's; None if
            ``golden.npz`` is not beside the network.
        note: Why it was not built, inspected or timed.
        turns: Its times.
    """

    form: str
    engine: str | None = None
    seconds: float = 0
    size: int = 0
    worst_cosine: float | None = None
    note: str = ""
    turns: tuple[Turns, ...] = ()


class Price(_Result):
    """A network and its engines.

    Attributes:
        model: Manifest id.
        precision: Precision of the network.
        onnx_size: Bytes of the ONNX.
        profile: The engines' optimisation profile.
        runtime: Runtime that built them.
        machine: Machine that built and timed them.
        engines: The engines in the order in which they were built.
    """

    model: str
    precision: Precision
    onnx_size: int
    profile: BatchRange
    runtime: str
    machine: MachineDescription
    engines: tuple[Built, ...] = ()


def in_rounds(
    timers: dict[str, Time], batch: int, rounds: int = _ROUNDS
) -> dict[str, tuple[float, ...]]:
    """Times engines in turns; each round begins with another one.

    Args:
        timers: Runs each engine.
        batch: The batch size.
        rounds: Number of rounds.

    Returns:
        The median of each engine in each round, milliseconds.
    """
    runs = {form: _runs_of(timer(batch, 5)) for form, timer in timers.items()}
    medians: dict[str, list[float]] = {form: [] for form in timers}
    order = list(timers)
    for _ in range(rounds):
        for form in order:
            medians[form].append(spread(timers[form](batch, runs[form])).median)
        order = [*order[1:], order[0]]
    return {form: tuple(times) for form, times in medians.items()}


def _runs_of(trial: Sequence[float]) -> int:
    return max(5, min(_MOST_RUNS, int(_ROUND_MS / max(1e-3, spread(trial).median))))


def compared(times: dict[str, tuple[float, ...]], batch: int) -> dict[str, Turns]:
    """Returns each engine's times divided by the first one's, round by round."""
    first = next(iter(times.values()))
    turns = {}
    for form, own in times.items():
        ratios = spread([mine / base for mine, base in zip(own, first, strict=True)])
        turns[form] = Turns(
            batch=batch, ms=spread(own).median, ratio=ratios.median, ratio_interval=ratios.interval
        )
    return turns


class Study:
    """Builds and times the engines of one network; writes its results after each step.

    Args:
        network: The ONNX.
        what: Its description.
        toolchain: The installed TensorRT.
        arch: Architecture of this GPU.
        batches: Batch sizes to time, smallest first; the engines are tuned for the largest.
        output: File of the results.
    """

    def __init__(
        self,
        network: Path,
        what: Timed,
        toolchain: Toolchain,
        arch: str,
        batches: Sequence[int],
        output: Path,
    ) -> None:
        self._network, self._what, self._output = network, what, output
        self._toolchain, self._arch, self._batches = toolchain, arch, batches
        self._inputs: dict[str, BuildInputs] = {}
        self.price = Price(
            model=what.model,
            precision=what.precision,
            onnx_size=network.stat().st_size,
            profile=BatchRange(min=batches[0], opt=batches[-1], max=batches[-1]),
            runtime=f"TensorRT {toolchain.version}",
            machine=describe_machine(),
        )

    def run(self, forms: Sequence[str], deadline: float, *, timed: bool = True) -> None:
        """Builds each form unless the deadline has passed, then times what there is.

        Args:
            forms: Keys of :data:`FORMS`.
            deadline: On the clock of ``time.monotonic``.
            timed: Whether to time the engines.
        """
        for form in forms:
            late = time.monotonic() > deadline
            self._add(Built(form=form, note="no time was left") if late else self.build(form))
        if timed:
            self.time()

    def build(self, form: str) -> Built:
        """Builds one engine; what fails becomes its note."""
        backend = get_backend(Runtime.TRT)
        engine = self._network.with_name(f"{self._network.stem}-{form.replace(' ', '-')}.engine")
        engine.unlink(missing_ok=True)
        note, started = "", time.perf_counter()
        try:
            options = backend.options(self._toolchain, {"timing_cache": "no", **FORMS[form]})
            inputs = BuildInputs(
                model=self._what.model,
                onnx=sha256_file(self._network),
                preprocess=self._what.preprocess,
                archs=(self._arch,),
                precision=self._what.precision,
                toolchain=self._toolchain,
                profiles=(self.price.profile,),
                options=options.model_dump(mode="json"),
            )
            self._inputs[form] = inputs
            backend.build(self._network, inputs, engine, parameters=self._what.parameters)
        except Exception as error:  # a lean runtime may lack what the inspection of an engine needs
            note = _note(error)
        seconds = round(time.perf_counter() - started, 1)
        if not engine.is_file():
            return Built(form=form, seconds=seconds, note=note)
        return Built(
            form=form, engine=engine.name, seconds=seconds, size=engine.stat().st_size, note=note
        )

    def time(self) -> None:
        """Times the engines in turns within this process, by replayed CUDA graphs."""
        with ExitStack() as stack:
            timers = {}
            for built in self.price.engines:
                if built.engine is None:
                    continue
                try:
                    timers[built.form] = self._opened(built, stack)
                except Exception as error:  # the other engines are still worth timing
                    self._replace(built.model_copy(update={"note": _note(error)}))
            for batch in self._batches if timers else ():
                turns = compared(in_rounds(timers, batch), batch)
                for built in self.price.engines:
                    if built.form in turns:
                        more = (*built.turns, turns[built.form])
                        self._replace(built.model_copy(update={"turns": more}))

    def _opened(self, built: Built, stack: ExitStack) -> Time:
        """Opens an engine, compares its features and returns how to time it."""
        assert built.engine is not None
        engine = self._network.with_name(built.engine)
        session = stack.enter_context(open_session(engine, self._inputs[built.form]))
        golden = self._network.with_name("golden.npz")
        if golden.is_file():
            cosine = worst_cosine(session, golden, self._what.preprocess)
            self._replace(built.model_copy(update={"worst_cosine": cosine}))
        assert isinstance(session, DeviceTimed)
        return _timer(session)

    def _replace(self, changed: Built) -> None:
        self._write([changed if o.form == changed.form else o for o in self.price.engines])

    def _add(self, built: Built) -> None:
        print(f"{self.price.model}, {built.form}: {built.seconds} s, {built.size:,} bytes "
              f"{built.note}", file=sys.stderr, flush=True)  # fmt: skip
        self._write([*self.price.engines, built])

    def _write(self, engines: Sequence[Built]) -> None:
        self.price = self.price.model_copy(update={"engines": tuple(engines)})
        with whole(self._output) as partial:
            partial.write_text(self.price.model_dump_json(indent=1), encoding="utf-8")


def _note(error: Exception) -> str:
    return error.message if isinstance(error, ZooError) else cause_of(error)


def _timer(session: DeviceTimed) -> Time:
    def run(batch: int, runs: int) -> Sequence[float]:
        return session.time_on_device(batch, 0, runs, cuda_graph=True)

    return run


def to_markdown(prices: Sequence[Price]) -> str:
    """Returns a table with a row per engine and batch size."""
    lines = [
        "| model | precision | engine | build s | MiB | worst cosine | batch | ms | times as slow "
        "|  |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for price in prices:
        for built in price.engines:
            start = f"| {price.model} | {price.precision} | {built.form} |"
            if built.engine is None:
                lines.append(f"{start} |  |  |  |  |  | {built.note} |")
                continue
            cosine = "" if built.worst_cosine is None else f"{built.worst_cosine:.6f}"
            cost = f" {built.seconds:.0f} | {built.size / 2**20:.1f} | {cosine} |"
            for turns in built.turns:
                lines.append(
                    f"{start}{cost} {turns.batch} | {turns.ms:.3g} | {_ratio(turns)} | "
                    f"{built.note} |"
                )
            if not built.turns:
                lines.append(f"{start}{cost}  |  |  | {built.note or 'not timed'} |")
    return "\n".join(lines)


def _ratio(turns: Turns) -> str:
    if turns.ratio_interval is None:
        return f"{turns.ratio:.3f}"
    low, high = turns.ratio_interval
    return f"{turns.ratio:.3f} ({low:.3f} to {high:.3f})"


def study(options: argparse.Namespace) -> int:
    """Builds and times the engines of some networks; returns 1 if one of them has none."""
    toolchain, archs = installed(Runtime.TRT), local_archs()
    if toolchain is None or not archs:
        raise TargetError(
            "an NVIDIA GPU and TensorRT are needed to build and time engines",
            hint="zoo-farm targets names the package and the driver of each line",
        )
    batches = sorted(map(parse_batch, words(options.batches)))
    forms = options.form or list(FORMS)
    deadline = time.monotonic() + options.seconds
    options.output.mkdir(parents=True, exist_ok=True)
    prices = []
    for path in kept(options.places):
        what = described(path)
        network = path.with_name(path.name.removesuffix(".speed.json") + ".onnx")
        output = options.output / f"{what.model}-{what.precision}.portability.json"
        of_network = Study(network, what, toolchain, archs[0].name, batches, output)
        of_network.run(forms, deadline, timed=not options.build_only)
        prices.append(of_network.price)
    print(to_markdown(prices))
    return 0 if all(any(built.engine for built in price.engines) for price in prices) else 1


def parse_batch(text: str) -> int:
    """Reads a batch size.

    Raises:
        UsageError: It is not a positive number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"batch size '{text}': a whole number from 1 on is needed")
    return int(text)


def main() -> int:
    """Entry point of ``python -m benchmarks.studies.portability``."""
    parser = Parser(prog="python -m benchmarks.studies.portability", description=__doc__)
    parser.add_argument("places", nargs="+", type=Path, help="folders or .speed.json files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--batches", default="1 64", help="batch sizes (default: 1 64)")
    parser.add_argument(
        "--form", action="append", choices=FORMS, help="a form; repeat for several (default: all)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3600, help="begin no build after these (default: 3600)"
    )
    parser.add_argument("--build-only", action="store_true", help="do not time the engines")
    parser.set_defaults(command=study)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
