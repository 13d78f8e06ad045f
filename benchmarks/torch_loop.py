"""The baseline of the feature pass: timm's transform, a DataLoader and eager PyTorch.

It is a process of its own, because the Python that runs the engine may not have torch (TensorRT 8.6
needs Python 3.10). For every line on stdin it runs all photos through the network once and answers
with a line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.paths import ROOT
from zoo.inference.preprocess import open_photo
from zoo.repository.repository import Repository
from zoo.schema.manifest import load_manifest
from zoo.schema.precisions import is_lowered
from zoo.schema.records import BuildRecord
from zoo.stores import open_store
from zoo.util.errors import JobError

_READY = "ready"


class TorchLoop:
    """The loop in a child process, as a context manager.

    Args:
        python: A Python with torch and timm.
        manifest: The model's manifest.
        store: URL of the repository, which holds the weights if they are random.
        record: The engine's build record; on a GPU, the network runs in the engine's precision.
        photos: Folder of JPEG files.
        batch: Batch size.
    """

    def __init__(
        self, python: str, manifest: Path, store: str, record: Path, photos: Path, batch: int
    ) -> None:
        arguments = [str(manifest.resolve()), store, str(record), str(photos), str(batch)]
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.torch_loop", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> TorchLoop:
        self.name = self._line()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self) -> None:
        """Runs all photos through the network once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(_READY):
            raise JobError(
                f"the PyTorch loop exited with status {self._process.wait()}",
                hint="its output is above; give a Python with torch and timm by --torch-python",
            )
        return line.removeprefix(_READY).strip()


def make_loop(
    manifest_file: Path, store: str, record: BuildRecord, photos: Path, batch: int
) -> tuple[Callable[[], None], str]:
    """Returns the loop and its name."""
    from builders.measure.engine_vs_pytorch import (
        backbone_of,  # first: makes timm importable with a CPU build of torch
    )

    manifest = load_manifest(manifest_file)
    model = backbone_of(Repository(open_store(store)), manifest, manifest_file.parent, record)

    import torch
    from timm.data import create_transform
    from torch.utils.data import DataLoader, Dataset

    preprocess = manifest.preprocess
    transform = create_transform(
        input_size=(3, preprocess.input_size, preprocess.input_size),
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=preprocess.crop,
    )
    files = sorted(photos.iterdir())

    class Photos(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> Any:
            return transform(open_photo(files[number]))

    on_gpu = torch.cuda.is_available()
    half = on_gpu and is_lowered(record.inputs.precision)
    device, dtype = torch.device("cuda" if on_gpu else "cpu"), torch.half if half else torch.float
    model = model.eval().to(device, dtype)
    if on_gpu:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(
        Photos(), batch_size=batch, num_workers=workers, persistent_workers=True, pin_memory=on_gpu
    )

    def run() -> None:
        with torch.inference_mode():
            rows = [
                model(images.to(device, dtype, non_blocking=True)).float().cpu()
                for images in loader
            ]
        assert sum(map(len, rows)) == len(files)

    return run, f"PyTorch loop, {'fp16, channels_last' if half else 'fp32'}"


def main(arguments: list[str]) -> int:
    """Answers each line on stdin after a pass over the photos."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_loop", description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("store", help="URL of the repository")
    parser.add_argument("record", type=Path, help="the engine's build record")
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("batch", type=int)
    options = parser.parse_args(arguments)
    record = BuildRecord.model_validate_json(options.record.read_bytes())
    run, name = make_loop(options.manifest, options.store, record, options.photos, options.batch)
    print(_READY, name, flush=True)
    for _ in sys.stdin:
        run()
        print(_READY, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
