"""Measures this project beside its peers; ``make bench`` runs it.

Writes bench.json, bench.md and bench.svg in docs/results, and the figures of README and docs.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.bench import builds, engines, gpus, growth, passes, plans, pulls
from benchmarks.bench.chart import draw
from benchmarks.bench.child import ROOT
from benchmarks.bench.figures import rewritten
from benchmarks.bench.ground import Ground
from benchmarks.bench.markdown import to_markdown
from benchmarks.bench.peers import Peers
from benchmarks.bench.results import Bench, Section, read_bench
from builders.verify.spread import ForeignLoad
from zoo.cli.main import Parser, run_cli
from zoo.client.host import describe_machine
from zoo.util.errors import UsageError
from zoo.util.files import write_whole

SECTIONS: Mapping[str, Callable[[Ground], Section]] = {
    "engine": engines.measure,
    "build": builds.measure,
    "plan": plans.measure,
    "pull": pulls.measure,
    "pass": passes.measure,
    "epoch": passes.measure_epoch,
    "gpu": gpus.measure,
    "growth": growth.measure,
}
"""The sections in the order of the page."""

_QUICK, _FULL, _FIGURES = "quick", "full", "figures"
_RESULTS = "bench.json"


def main() -> int:
    """Entry point of ``python -m benchmarks``."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=[_FULL],
        help=f"full, quick, sections ({', '.join(SECTIONS)}; the others stay as they are), or "
        "figures: only write the pages again",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", help="folder")
    parser.add_argument("--pages", type=Path, default=ROOT, help="folder of README.md and docs")
    parser.set_defaults(command=run)
    return run_cli(parser, sys.argv[1:])


def run(options: argparse.Namespace) -> int:
    """Measures what was asked for, and writes everything."""
    words = [word for given in options.what for word in given.replace(",", " ").split()] or [_FULL]
    if unknown := sorted({*words} - {*SECTIONS, _QUICK, _FULL, _FIGURES}):
        raise UsageError(
            f"no section '{unknown[0]}'", hint=f"there are {', '.join(SECTIONS)}, quick and full"
        )
    if words != [_FIGURES]:
        names = [word for word in words if word in SECTIONS] or [*SECTIONS]
        for section in measured(names, quick=_QUICK in words):  # what is measured is kept
            write_results(merged(read_bench(options.results / _RESULTS), section), options.results)
    bench = read_bench(options.results / _RESULTS)
    if bench is None:
        raise UsageError(f"{options.results}: no results", hint="make bench measures them")
    write_pages(bench, options.results, options.pages)
    return 0


def measured(names: Sequence[str], *, quick: bool) -> Iterator[Section]:
    """Yields the results of some sections; prints how long each took."""
    with tempfile.TemporaryDirectory() as scratch:
        ground = Ground(Path(scratch), quick, Peers())
        for name in names:
            begun, load = time.monotonic(), ForeignLoad(time.monotonic, own=_own_seconds)
            section = SECTIONS[name](ground)
            today = datetime.now(timezone.utc).date().isoformat()
            stated = {"date": today, "quick": quick, "load": load.share()}
            yield section.model_copy(update=stated)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _own_seconds() -> float:
    """Returns the processor's seconds of this process and of its children, which have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def merged(before: Bench | None, section: Section) -> Bench:
    """Returns results with a new section in place of the earlier one of its name."""
    known = {known.name: known for known in before.sections} if before else {}
    known[section.name] = section
    machine = describe_machine()
    words = ", ".join(filter(None, [machine.cpu, f"{machine.cores} cores", machine.gpu_name]))
    return Bench(
        machine=words,
        python=platform.python_version(),
        sections=tuple(known[name] for name in SECTIONS if name in known),
    )


def write_results(bench: Bench, folder: Path) -> None:
    """Writes the results as JSON."""
    stated = json.loads(bench.model_dump_json())
    write_whole(folder / _RESULTS, (json.dumps(stated, indent=1) + "\n").encode())


def write_pages(bench: Bench, results: Path, pages: Path) -> None:
    """Writes the page and the chart of the results, and the figures of README and docs."""
    write_whole(results / "bench.md", to_markdown(bench).encode())
    draw(bench, results / "bench.svg")
    for page in (pages / "README.md", *sorted((pages / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        try:
            new = rewritten(text, bench)
        except KeyError as error:
            raise UsageError(
                f"{page}: its figure {error} is not in {results / _RESULTS}, so pages from there "
                "on are as they were",
                hint="make bench measures all sections; --pages names other pages",
            ) from error
        if new != text:
            write_whole(page, new.encode())


if __name__ == "__main__":
    sys.exit(main())
