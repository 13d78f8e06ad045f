"""Runs photos through one network in one way, in a process of its own (:mod:`..child`).

``pass_ways.py WAY WORK``: ``ours`` is the feature pass, ``plain`` and ``strong`` are the loops of
:mod:`benchmarks.torch_loop`; ``cached`` is an epoch of training from a cache, ``end_to_end`` one of
the plain loop with the same head behind the frozen network.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.bench.serve import serve
from benchmarks.torch_loop import Network, Stored, loader_of, model_of, plain_loop, strong_loop

_EPOCHS = 50  # of training from the cache, so that a run is long enough to be timed
_RATE = 1e-3

Made = tuple[Callable[[], Any], str]
"""What does the work once, and a name."""


def main(way: str, path: Path) -> None:
    """Answers each line on stdin after doing the work once."""
    work = json.loads(path.read_text())
    stored = Stored(**work["network"].pop("stored"))
    network = Network(**work["network"], stored=stored)
    files = sorted(Path(work["photos"]).rglob("*.jpg"))
    match way:
        case "ours":
            run, name = _feature_pass(work, path.parent / "caches")
        case "cached":
            run, name = _cached(work)
        case "plain":
            run, name = plain_loop(network, files, work["batch"])
        case "strong":
            run, name = strong_loop(network, files, work["batch"])
        case "end_to_end":
            run, name = _end_to_end(network, files, work["batch"])
        case _:
            raise ValueError(way)
    serve(name, run, per=_EPOCHS if way == "cached" else 1)


def _feature_pass(work: dict[str, Any], folder: Path) -> Made:
    from zoo.caft.features import cache_features
    from zoo.inference.extractor import load

    extractor = load(
        work["model"], store=work["store"], trust=work["root"], target=work["target"],
        allow_seeded=True,
    )  # fmt: skip
    numbers = count()

    def run() -> None:
        cache = folder / str(next(numbers))
        cache_features(work["photos"], extractor, cache, batch=work["batch"])
        shutil.rmtree(cache)

    return run, extractor.why


def _cached(work: dict[str, Any]) -> Made:
    from zoo.caft.cache import FeatureCache
    from zoo.caft.settings import Settings
    from zoo.caft.train import train_head

    cache = FeatureCache(Path(work["cache"]))
    settings = Settings(
        epochs=_EPOCHS, patience=_EPOCHS, batch=work["batch"], val=0.1, test=0.1,
        learning_rate=_RATE,
    )  # fmt: skip
    return lambda: train_head(cache, settings), "a head on cached features"


def _end_to_end(network: Network, files: list[Path], batch: int) -> Made:
    """The same optimiser behind the frozen network, which runs on every photo of every epoch."""
    model = model_of(network).eval()

    import torch

    loader = loader_of(network, files, batch)
    classes = sorted({path.parent.name for path in files})
    labels = torch.tensor([classes.index(path.parent.name) for path in files])
    with torch.inference_mode():
        width = model(torch.zeros(1, 3, network.input_size, network.input_size)).shape[1]
    head = torch.nn.Linear(width, len(classes))
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE)

    def run() -> None:
        start = 0
        for images in loader:
            with torch.inference_mode():
                features = model(images)
            wanted = labels[start : start + len(images)]
            start += len(images)
            loss = torch.nn.functional.cross_entropy(head(features.clone()), wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    return run, f"PyTorch {torch.__version__}, frozen network and head"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
