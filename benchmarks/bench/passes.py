"""The feature pass beside PyTorch loops, and an epoch from a cache beside one end to end."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.bench.child import Child
from benchmarks.bench.ground import MODEL, Engine, Ground
from benchmarks.bench.results import Growth, Ratio, Section, Taken
from benchmarks.bench.turns import in_turns
from benchmarks.feature_pass import JPEG_SIZE, jpegs, network_of, write_photos
from benchmarks.synthetic_cache import write_cache

ABOUT = (
    "JPEG photos of 500x375 pixels, those of the farm's packages, repeated. The pass decodes, "
    "hashes, runs the engine and writes the cache; the plain loop is timm's transform, a "
    "`DataLoader` with a process on each core and eager PyTorch, the strong one runs a compiled "
    "network in channels_last, and neither stores anything."
)
ABOUT_EPOCH = (
    "An epoch of a linear head's training with AdamW, in batches of the same size, on as many "
    "rows of cached features as the other has photos. End to end is the plain loop with that head "
    "behind the frozen network: decoding, the network and the optimiser."
)
_BATCH = 16
_SCRIPT = "benchmarks.bench.pass_ways"


def measure(ground: Ground) -> Section:
    """Measures the feature pass, and how it grows with the number of images."""
    images = 32 if ground.quick else 192
    ratios = _turns(ground, ("ours", "plain", "strong"), images, ground.rounds(6))
    sizes = (8, 80) if ground.quick else (64, 640)
    grown: dict[int, list[Taken]] = {}
    with ExitStack() as stack:
        children = {
            size: stack.enter_context(_child(ground, "ours", _work(ground, size))) for size in sizes
        }
        ways = {str(size): child.run for size, child in children.items()}
        for size, taken in in_turns(ways, ground.rounds(3)).items():
            grown[int(size)] = taken
    return Section(
        name="pass", title="The feature pass", about=ABOUT, ratios=ratios,
        growths=(Growth.of("images", "a feature pass", "images", grown),),
    )  # fmt: skip


def measure_epoch(ground: Ground) -> Section:
    """Measures an epoch from the cache and one end to end."""
    images = 32 if ground.quick else 192
    ratios = _turns(ground, ("cached", "end_to_end"), images, ground.rounds(6))
    return Section(
        name="epoch", title="An epoch of cached-activation fine-tuning", about=ABOUT_EPOCH,
        ratios=ratios,
    )  # fmt: skip


def _turns(ground: Ground, ways: tuple[str, ...], images: int, rounds: int) -> tuple[Ratio, ...]:
    work = _work(ground, images)
    with ExitStack() as stack:
        children = {way: stack.enter_context(_child(ground, way, work)) for way in ways}
        runs = in_turns({way: child.run for way, child in children.items()}, rounds)
    ours, *peers = ways
    return tuple(
        Ratio.of(way, f"{MODEL}, {images} images", children[way].name, runs[ours], runs[way])
        for way in peers
    )


def _child(ground: Ground, way: str, work: Path) -> Child:
    return Child([sys.executable, "-m", _SCRIPT, way, work], ground.environment)


def _work(ground: Ground, images: int) -> Path:
    """Writes photos, a cache of as many rows, and what the contestants read; returns the file."""
    engine, folder = ground.engine(), ground.folder(f"pass-{images}")
    file = folder / "work.json"
    if file.exists():
        return file
    photos = folder / "photos"
    for number, part in enumerate(("a", "b")):  # two classes
        half = jpegs(None, images, JPEG_SIZE)[number::2]
        write_photos(photos / part, half)
    write_cache(folder / "cache", images, engine.record.feature_dim, classes=2)
    file.write_text(json.dumps(_stated(ground, engine, folder)))
    return file


def _stated(ground: Ground, engine: Engine, folder: Path) -> dict[str, object]:
    store, record = str(ground.store), folder / "record.json"
    return {
        "model": MODEL,
        "network": asdict(network_of(engine.record, engine.manifest, store, record)),
        "store": store,
        "root": ground.root_of(ground.store),
        "target": engine.record.targets[0],
        "photos": str(folder / "photos"),
        "cache": str(folder / "cache"),
        "batch": _BATCH,
    }
