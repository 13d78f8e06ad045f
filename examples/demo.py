"""Cached-activation fine-tuning, from photos to an evaluated head, with its timings.

The backbone is EfficientNet-Lite0 with its ImageNet weights. An epoch from the cache is timed as
training runs it; an end-to-end epoch decodes the same photos, runs the same engine on them and
takes the same optimiser steps. ``make demo`` runs it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.demo_photos import DemoSet, own_photos, regions_of_photos
from zoo.caft.augment import Augmentation
from zoo.caft.cache import FeatureCache
from zoo.caft.decode import host_decoder
from zoo.caft.features import Pass, cache_features
from zoo.caft.head import Head
from zoo.caft.lists import ListSource
from zoo.caft.progress import epoch_progress, pass_progress
from zoo.caft.report import Report, draw_curve, new_figure, save_figure
from zoo.caft.sample import Sample
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.caft.train import train_head
from zoo.cli.main import Parser, run_cli
from zoo.cli.support import add_store
from zoo.client.host import describe_machine
from zoo.inference.extractor import Extractor, load, say
from zoo.inference.preprocess import open_photo

MODEL = "efficientnet_lite0"
_VIEWS = 3  # random views besides the plain one
_SHOWN = 10  # photos in the figure
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The demo's results.

    Attributes:
        photos: The data set.
        engine: Which engine was chosen and why.
        first: The feature pass.
        views: Rows per image.
        report: The head's report.
        end_to_end: Duration of an epoch without the cache, in seconds.
    """

    photos: DemoSet
    engine: str
    first: Pass
    views: int
    report: Report
    end_to_end: float

    @property
    def lines(self) -> list[str]:
        """The results as text."""
        cached = self.report.seconds_per_epoch
        return [
            f"photos       {self.photos.name}, {len(self.report.labels)} classes",
            f"engine       {self.engine}",
            f"result       {self.report.line}",
            f"first pass   {self.first.seconds:.1f} s: {self.first.images} images in {self.views} "
            f"views, {self.first.images_per_second * self.views:.1f} a second; it waited for the "
            f"engine {self.first.in_engine / self.first.seconds:.0%} of the time",
            f"an epoch     {cached * 1000:.2f} ms from the cache (of {len(self.report.curve)}), "
            f"{self.end_to_end:.2f} s end to end: {self.end_to_end / cached:,.0f} times as fast",
        ]


def demo(options: argparse.Namespace) -> int:
    """Runs the demo."""
    if options.check:
        with tempfile.TemporaryDirectory() as scratch:
            own_photos(Path(options.data), Path(scratch))
        return 0
    out = Path(options.output)
    for name in ("cache", "photos"):
        shutil.rmtree(out / name, ignore_errors=True)
    photos = (
        own_photos(Path(options.data), out / "photos")
        if options.data
        else regions_of_photos(out / "photos", say)
    )
    settings = Settings(batch=_BATCH, val=0 if photos.few else 0.1, test=0.5 if photos.few else 0.3)
    with load(MODEL, store=options.store) as extractor:
        with pass_progress(photos.data) as progress:
            _, first = cache_features(
                photos.data,
                extractor,
                out / "cache",
                augment=_VIEWS,
                on_bad=lambda name, why: progress.say(f"skipped {name}: {why}"),
                on_progress=progress.show,
            )
        cache = FeatureCache(out / "cache")
        with epoch_progress(settings.epochs) as show:
            head, report = train_head(cache, settings, on_epoch=show)
        end_to_end = epoch_end_to_end(photos, extractor, cache, settings)
        engine = extractor.why
    head.save(out / "head.safetensors")
    outcome = Outcome(
        photos=photos,
        engine=engine,
        first=first,
        views=cache.views,
        report=report,
        end_to_end=end_to_end,
    )
    draw(outcome, head, cache, settings, out / "demo.png")
    machine = describe_machine()
    print(*outcome.lines, sep="\n")
    print(f"machine      {machine.cpu}, {machine.cores} cores")
    print(f"{out / 'demo.png'}, {out / 'head.safetensors'}")
    return 0


def epoch_end_to_end(
    photos: DemoSet, extractor: Extractor, cache: FeatureCache, settings: Settings
) -> float:
    """Times an epoch without the cache: decoding, backbone and optimiser steps.

    Returns:
        Its duration in seconds, over all views of the images that the head was trained on.
    """
    import torch

    train = split_samples(cache, val=settings.val, test=settings.test, seed=settings.seed).train
    names = list(cache.names())
    wanted = {names[number] for number in train}
    samples: list[Sample] = [sample for sample in ListSource(photos.data) if sample.name in wanted]
    augmentation = Augmentation(count=_VIEWS)
    at_once = max(1, settings.batch // augmentation.views)
    decoder = host_decoder(extractor.preprocess, augmentation, samples=at_once)
    numbers = {name: number for number, name in enumerate(cache.label_names)}
    module = torch.nn.Linear(extractor.feature_dim, len(numbers))
    optimiser = torch.optim.AdamW(module.parameters(), lr=settings.learning_rate)
    started = time.perf_counter()
    for batch in decoder.batches(samples):
        features = torch.from_numpy(extractor.session.features(batch.images))
        labels = [numbers[str(outcome.label)] for outcome in batch.outcomes]
        target = torch.tensor(labels).repeat_interleave(augmentation.views)
        loss = torch.nn.functional.cross_entropy(module(features), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return time.perf_counter() - started


def draw(outcome: Outcome, head: Head, cache: FeatureCache, settings: Settings, path: Path) -> None:
    """Draws held-out photos with their predicted classes, the learning curve and the timings."""
    figure = new_figure(12, 6.5)
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    split = split_samples(cache, val=settings.val, test=settings.test, seed=settings.seed)
    names = list(cache.names())
    shown = np.random.default_rng(0).permutation(split.test)[:_SHOWN]
    for axes, number in zip(above.subplots(2, _SHOWN // 2).flat, shown, strict=False):
        _draw_photo(axes, outcome.photos.data.parent / names[number], head, cache, int(number))
    above.suptitle(outcome.report.line, fontsize=11)
    curve, times = below.subplots(1, 2)
    draw_curve(curve, outcome.report)
    seconds = [outcome.first.seconds, outcome.end_to_end, outcome.report.seconds_per_epoch]
    names = ["first pass", "an epoch\nend to end", "an epoch\nfrom the cache"]
    bars = times.barh(names[::-1], seconds[::-1], color=["tab:green", "tab:gray", "tab:blue"])
    times.bar_label(bars, [f" {value:.3g} s" for value in seconds[::-1]], fontsize=9)
    times.set(xscale="log", xlabel="seconds", title="Seconds")
    times.margins(x=0.25)
    save_figure(figure, path)


def _draw_photo(axes: Any, photo: Path, head: Head, cache: FeatureCache, number: int) -> None:
    image = open_photo(photo)
    image.thumbnail((220, 220))
    (predicted,) = head.predict(cache.plain[number : number + 1])
    truth = cache.label_names[cache.labels[number]]
    axes.imshow(image)
    axes.axis("off")
    colour = "tab:green" if predicted == truth else "tab:red"
    axes.set_title(predicted[:24], fontsize=8, color=colour)


def main() -> int:
    """Entry point of ``python -m examples.demo``."""
    parser = Parser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument(
        "--data", default="", help="a folder with a subfolder per class (default: bundled photos)"
    )
    parser.add_argument("--check", action="store_true", help="only check --data")
    parser.add_argument("--output", default="_demo", help="folder for photos, cache and figure")
    add_store(parser)
    parser.set_defaults(command=demo)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
