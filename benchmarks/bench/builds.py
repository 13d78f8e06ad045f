"""Export, build and verification beside the same done with torch.onnx and polygraphy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks.bench.ground import MODEL, Ground, farm
from benchmarks.bench.results import Ratio, Section, Taken
from benchmarks.bench.turns import command, in_turns

ABOUT = (
    "From nothing to a verified CPU engine, whole commands. Ours is `zoo-farm zoo`: it exports, "
    "checks, optimises, verifies every batch size with 16 photos in turns with PyTorch, times, "
    "signs, publishes, and writes the catalog. The peer is what one would script: "
    "`torch.onnx.export` and PyTorch's features, `polygraphy surgeon sanitize --fold-constants`, "
    "and `polygraphy run --onnxrt` for each of three batch sizes against those features. Memory "
    "is that of the largest process."
)
_EXPORT = Path(__file__).with_name("plain_export.py")
_BATCHES = (1, 4, 16)


def measure(ground: Ground) -> Section:
    """Measures both."""
    section = Section(name="build", title="Export, build and verification", about=ABOUT)
    if (polygraphy := ground.peers.command("polygraphy")) is None:
        return section.model_copy(update={"skipped": (ground.peers.lacks("polygraphy"),)})
    version = ground.peers.pinned("polygraphy")
    folder, numbers = ground.folder("builds"), count()

    def ours() -> Taken:
        place = folder / f"ours{next(numbers)}"
        return command(farm(MODEL, place / "s", place / "site"), environment=ground.environment)

    def theirs() -> Taken:
        place = folder / f"theirs{next(numbers)}"
        place.mkdir()
        return _sum(command(one, folder=place) for one in _script(polygraphy))

    rounds = ground.rounds(6, 1)
    runs = in_turns({"ours": ours, "theirs": theirs}, rounds, warm=not ground.quick)
    ratio = Ratio.of(
        "polygraphy", f"{MODEL}, CPU, fp32", f"torch.onnx and {version}", runs["ours"],
        runs["theirs"],
    )  # fmt: skip
    return section.model_copy(update={"ratios": (ratio,)})


def _script(polygraphy: Path) -> Iterator[list[str | Path]]:
    """Yields the peer's commands, which write into the folder they run in."""
    yield [sys.executable, _EXPORT, MODEL, ",".join(map(str, _BATCHES))]
    yield [polygraphy, "surgeon", "sanitize", "m.onnx", "--fold-constants", "-o", "engine.onnx"]
    for batch in _BATCHES:
        yield [
            polygraphy, "run", "engine.onnx", "--onnxrt", "--load-inputs", f"x{batch}.json",
            "--load-outputs", f"y{batch}.json", "--rtol", "1e-3", "--atol", "1e-3",
        ]  # fmt: skip


def _sum(parts: Iterator[Taken]) -> Taken:
    taken = list(parts)
    return Taken(
        seconds=sum(one.seconds for one in taken), mib=max(one.mib or 0.0 for one in taken)
    )
