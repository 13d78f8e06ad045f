"""Compares engines of this machine with timm, from the photo on: its transform and its features.

Nothing of a manifest but names goes into timm's side: timm's own configuration of the tag gives the
transform, and its own methods the features. The photos have sizes that no network takes. ::

    python -m benchmarks.against_timm --models 'convnext*' -o docs/results/models.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from builders import weights
from builders.cli.options import chosen_manifests, open_reader
from builders.export import backbone
from builders.export.cuts import timm_features
from builders.measure.beside_timm import BesideTimm, add_rows
from builders.paths import ROOT
from builders.photos.bundled import golden_paths
from builders.verify.metrics import compare_rows
from builders.weights import state
from builders.weights.mode import WeightsMode
from zoo.cli.main import Parser, run_cli
from zoo.client.client import Client
from zoo.inference.extractor import load
from zoo.inference.preprocess import open_photo
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry
from zoo.schema.manifest import Fact, Manifest, sides
from zoo.schema.measurements import BatchNumbers, Cost
from zoo.schema.records import ExportRecord, Status
from zoo.stores import open_store
from zoo.util.errors import RepositoryError, ZooError

_SIZES = ((333, 501), (640, 239), (97, 131), (451, 450), (1021, 67), (224, 225))
"""Width and height of the photos: odd, wide, tall, smaller and larger than the input."""


def photos() -> list[Image.Image]:
    """Returns photos of odd sizes, cut out of those that the package has."""
    made = []
    for number, (width, height) in enumerate(_SIZES):
        image = open_photo(golden_paths()[number])
        made.append(image.resize((width, height), Image.Resampling.LANCZOS))
    return [*made, made[0].convert("L")]


def timm_rows(
    manifest: Manifest, network: Any, images: Sequence[Image.Image]
) -> npt.NDArray[np.float32]:
    """Returns the features of photos by timm's transform and its network's own methods.

    Args:
        manifest: The model, for the names of architecture, tag and cut, and for a size that it
            states against timm.
        network: timm's network with the engine's weights.
        images: The photos.
    """
    import torch

    timm = backbone.import_timm()
    from timm.data import create_transform, resolve_data_config

    own = {}
    if Fact.INPUT_SIZE in manifest.deviations:
        own["input_size"] = (3, *sides(manifest.preprocess.input_size))
    config = resolve_data_config(
        own,
        pretrained_cfg=timm.get_pretrained_cfg(manifest.timm_name).to_dict(),
        use_test_size=manifest.preprocess.size_of == "test",
    )
    transform = create_transform(**config, is_training=False)
    batch = torch.stack([transform(image.convert("RGB")) for image in images])
    rows = [timm_features(network, manifest.backbone.cut, one[None]).numpy() for one in batch]
    return np.concatenate(rows)


def compare(manifest: Manifest, client: Client, store: str) -> Iterator[BesideTimm]:
    """Compares the engines of a model that run on this machine.

    Raises:
        ZooError: An engine can't be loaded, or the weights of its export are gone.
    """
    repository = Repository(open_store(store))
    index = client.model(manifest.id)
    images, network = photos(), None
    for entry in index.current:
        numbers = None
        if entry.status is Status.VERIFIED and entry.targets[0].startswith("cpu"):
            if network is None:
                network = _network(manifest, repository)
                expected = timm_rows(manifest, network, images)
            with load(
                manifest.id, client=client, target=entry.targets[0], allow_seeded=True,
                report=lambda text: None,
            ) as extractor:  # fmt: skip
                numbers = compare_rows(extractor(images), expected, expected)
        yield _row(manifest, entry, repository, numbers)


def _network(manifest: Manifest, repository: Repository) -> Any:
    """Returns timm's network with the weights that the engines were exported from."""
    model = backbone.create(manifest)
    kind = repository.kind()
    if kind is None or not kind.seeded:
        state.load_state(model, manifest, weights.fetch(manifest, ROOT / "manifests"))
        return model.eval()
    identity = weights.identify(manifest, WeightsMode.SEEDED)
    record = repository.state(manifest.id, identity.digest)
    if record is None:
        raise RepositoryError(
            f"{repository.store.url}: the seeded weights of {manifest.id} are not those of this "
            "checkout"
        )
    with tempfile.TemporaryDirectory() as folder:
        state.load_seeded(model, manifest, repository.blobs.whole(record.state, Path(folder)))
    return model.eval()


def _row(
    manifest: Manifest, entry: EngineEntry, repository: Repository, numbers: BatchNumbers | None
) -> BesideTimm:
    record = repository.record(manifest.id, entry.record)
    export = repository.export(manifest.id, record.export_key) if record else None
    cost = export.cost if isinstance(export, ExportRecord) else Cost()
    return BesideTimm(
        model=manifest.id,
        targets=", ".join(entry.targets),
        status=entry.status,
        cosine=numbers.worst_cosine if numbers else None,
        relative_error=numbers.worst_relative_error if numbers else None,
        export=cost,
        build=entry.cost,
        size=entry.engine.size,
        seeded=entry.dry_run,
    )


HEADINGS = (
    "model", "engine", "status", "worst cosine", "worst relative error", "export s", "GiB",
    "build s", "verify s", "GiB", "engine MiB",
)  # fmt: skip


def table(rows: Sequence[BesideTimm]) -> Iterator[str]:
    """Returns the lines of a table in Markdown."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield "| --- | --- | --- |" + " ---: |" * (len(HEADINGS) - 3)
    for row in rows:
        cells = (
            row.model, row.targets, row.status,
            _number(row.cosine, "{:.6f}"), _number(row.relative_error, "{:.1e}"),
            _number(row.export.seconds, "{:.0f}"), _gib(row.export.peak_memory),
            _number(row.build.seconds, "{:.1f}"), _number(row.build.proof_seconds, "{:.0f}"),
            _gib(row.build.peak_memory), f"{row.size / 2**20:.1f}",
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / 2**30:.1f}"


def run(options: argparse.Namespace) -> int:
    """Compares what a repository holds of the chosen models, and prints a table."""
    client = open_reader(options.store, "")
    manifests, _ = chosen_manifests(options, locks=False)
    published = {row.model for row in client.index().models}
    rows: list[BesideTimm] = []
    failed = False
    for name, manifest in manifests.items():
        if name not in published:
            print(f"{name}: not published", file=sys.stderr)
            continue
        started = time.perf_counter()
        try:
            rows += compare(manifest, client, options.store)
        except ZooError as error:
            failed = True
            print(f"{name}: {error.message}", file=sys.stderr)
            continue
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print("\n".join(table(rows)))
    if options.output:
        add_rows(Path(options.output), rows)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = Parser(prog="python -m benchmarks.against_timm", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--store", default="_repository-seeded", help="folder of the repository")
    made.add_argument("--models", default="", help="ids, globs, families (default: all published)")
    made.add_argument(
        "--manifests", default=str(ROOT / "manifests"), metavar="DIR", help="folder of manifests"
    )
    made.add_argument("-o", "--output", help="file of measurements to add to")
    made.set_defaults(command=run)
    return made


if __name__ == "__main__":
    sys.exit(run_cli(parser(), sys.argv[1:]))
