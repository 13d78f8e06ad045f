"""The feature pass with an engine of this machine's GPU beside PyTorch loops on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.bench.ground import MODEL, Ground, farm, manifest_of
from benchmarks.bench.results import Ratio, Section, Taken
from benchmarks.bench.turns import Way, command, in_turns
from benchmarks.feature_pass import JPEG_SIZE, jpegs, network_of, ways_of, write_photos
from benchmarks.torch_loop import Network, TorchLoop
from zoo.client.host import describe_machine
from zoo.inference.extractor import Extractor, load

ABOUT = (
    "JPEG photos of 500x375 pixels, decoded on the GPU. The loops are those of "
    "`benchmarks.torch_loop`: timm's transform and a `DataLoader`, and torchvision's decoder on "
    "the GPU before a compiled network. The engine alone on images that are ready is what the "
    "pass can reach at most."
)
_PASS, _ALONE = "feature pass, JPEG files", "the engine alone, images ready"


def measure(ground: Ground) -> Section:
    """Measures the GPU's engine; nothing on a machine without a GPU."""
    section = Section(name="gpu", title="The feature pass on a GPU", about=ABOUT)
    if describe_machine().gpu_name is None:
        return section.model_copy(update={"skipped": ("this machine has no NVIDIA GPU",)})
    store = ground.folder("gpu") / "store"
    command(
        farm(MODEL, store, ground.folder("gpu") / "site", gpu="", precision="fp16"),
        environment=ground.environment,
    )
    with load(MODEL, store=str(store), trust=ground.root_of(store), allow_seeded=True) as engine:
        record = ground.folder("gpu") / "record.json"
        network = network_of(engine.record, manifest_of(MODEL), str(store), record)
        ratios = beside_loops(ground, engine, network, 2_048 if ground.quick else 16_384, 256)
    return section.model_copy(update={"ratios": ratios})


def beside_loops(
    ground: Ground,
    extractor: Extractor,
    network: Network,
    images: int,
    batch: int,
    python: str = sys.executable,
) -> tuple[Ratio, ...]:
    """Returns the ratios of the pass to the loops and to the engine alone.

    Args:
        ground: Where files go.
        extractor: The engine.
        network: The network of the loops, the engine's own.
        images: Number of photos.
        batch: Batch size.
        python: A Python with torch and timm, for the loops.
    """
    folder = ground.folder(f"loops-{images}")
    photos = write_photos(folder / "photos", jpegs(None, images, JPEG_SIZE))
    with ExitStack() as stack:
        loops = [
            stack.enter_context(TorchLoop(python, way, network, photos, batch))
            for way in ("plain", "strong")
        ]
        runs = ways_of(extractor, loops, photos, folder, batch).named
        peers = [_ALONE, *(f"{loop.name}, JPEG files" for loop in loops)]
        taken = in_turns({name: _timed(runs[name]) for name in (_PASS, *peers)}, ground.rounds(6))
    keys = dict(zip(("alone", "plain", "strong"), peers, strict=True))
    return tuple(
        Ratio.of(key, f"{network.name}, {images:,} images", name, taken[_PASS], taken[name])
        for key, name in keys.items()
    )


def _timed(run: Callable[[], None]) -> Way:
    def way() -> Taken:
        begun = time.perf_counter()
        run()
        return Taken(seconds=time.perf_counter() - begun)

    return way
