"""What TensorRT engines that run on more than one GPU or release cost, as it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from zoo.catalog import facts
from zoo.catalog.documents import read_document
from zoo.schema.index import EngineEntry
from zoo.schema.intervals import Interval
from zoo.schema.measurements import MachineDescription
from zoo.schema.runtimes import Runtime


class _Measured(BaseModel):
    model_config = ConfigDict(frozen=True)


class Turns(_Measured):
    """An engine's time in terms of that of the engine for one architecture.

    Attributes:
        batch: Images per batch.
        ratio: How many times as slow it is.
        ratio_interval: Encloses the true median with 95%; None if there were too few rounds.
    """

    batch: int
    ratio: float = Field(gt=0)
    ratio_interval: Interval | None = None


class Form(_Measured):
    """A form of a network's engine.

    Attributes:
        form: What it runs on, in words.
        size: Bytes; 0 if it was not built.
        note: Why it was not.
        turns: Its times.
    """

    form: str
    size: int = 0
    note: str = ""
    turns: tuple[Turns, ...] = ()


class Price(_Measured):
    """The forms of a network's engine, as ``benchmarks.studies.portability`` measured them.

    Attributes:
        model: The network's id.
        precision: Its precision.
        runtime: What built the engines.
        machine: What ran them.
        engines: The forms; the first is the engine for one architecture.
    """

    model: str
    precision: str
    runtime: str
    machine: MachineDescription
    engines: tuple[Form, ...]


@dataclass(frozen=True)
class Row:
    """A form of an engine, for a table.

    Attributes:
        network: The network and its precision.
        form: What it runs on.
        size: Bytes and, of others than the first form, in terms of the first's.
        times: How many times as slow it is at each batch size; empty if it was not measured.
        note: Why it was not.
    """

    network: str
    form: str
    size: str = ""
    times: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Prices:
    """A table of what portable engines cost.

    Attributes:
        batches: Batch sizes.
        rows: The forms.
        measured: Runtimes and machines.
        own: Whether they are those of the page's model.
    """

    batches: tuple[int, ...]
    rows: tuple[Row, ...]
    measured: str
    own: bool


def read_prices(paths: Iterable[Path]) -> tuple[Price, ...]:
    """Reads result files; those without times are left out.

    Raises:
        UsageError: One can't be read, or is no such result.
    """
    found = []
    for path in paths:
        price = read_document(
            path, Price, "no result of benchmarks.studies.portability",
            "restore it from version control, or measure again",
        )  # fmt: skip
        if any(form.turns for form in price.engines):
            found.append(price)
    return tuple(found)


def prices(measured: Sequence[Price], model: str, engines: Iterable[EngineEntry]) -> Prices | None:
    """Returns what portable engines cost, for the page of a model or an engine.

    Args:
        measured: The results.
        model: The model; if it was measured, the others are left out.
        engines: The engines on the page.

    Returns:
        None if nothing was measured, or no engine is for standard TensorRT, which alone offers the
        choice.
    """
    if not measured or all(engine.toolchain.kind != Runtime.TRT for engine in engines):
        return None
    own = [price for price in measured if price.model == model]
    shown = own or list(measured)
    batches = sorted({t.batch for price in shown for form in price.engines for t in form.turns})
    places = dict.fromkeys(
        f"{price.runtime} on {facts.machine_words(price.machine)}" for price in shown
    )
    rows = (_row(price, form, batches) for price in shown for form in price.engines)
    return Prices(tuple(batches), tuple(rows), "; ".join(places), own=bool(own))


def _row(price: Price, form: Form, batches: Sequence[int]) -> Row:
    network = f"{price.model} {price.precision}"
    if not form.turns:
        return Row(network, form.form, note=form.note or "not measured")
    first = price.engines[0]
    size = facts.mib(form.size)
    if form != first and first.size:
        size = f"{size} ({form.size / first.size:.2f})"
    times = {turns.batch: _times(turns) for turns in form.turns}
    if form == first:
        times = dict.fromkeys(times, "1")
    return Row(network, form.form, size, tuple(times.get(batch, "–") for batch in batches))


def _times(turns: Turns) -> str:
    if turns.ratio_interval is None:
        return f"{turns.ratio:.3f}"
    low, high = turns.ratio_interval
    return f"{turns.ratio:.3f} ({low:.3f} to {high:.3f})"
