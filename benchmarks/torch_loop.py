"""The baselines of the feature pass: loops that a user of PyTorch would write.

``plain`` is timm's transform, a ``DataLoader`` and eager PyTorch. ``strong`` is what an expert
would do. On a GPU: JPEG files decoded there by torchvision, resized there with antialiasing, a
compiled network, and decoding overlapped with it in a thread; its pixels differ from Pillow's. On a
CPU: the plain loop with a compiled network in ``channels_last``.

A loop is a process of its own, because the Python that runs the engine may not have torch (TensorRT
8.6 needs Python 3.10). For every line on stdin it runs all photos through the network once and
answers with a line. It imports the farm only if it loads stored weights.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
Way = Literal["plain", "strong"]
_READY = "ready"
_AHEAD = 2  # batches that the strong loop decodes ahead of the network


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where the weights of an engine are.

    Attributes:
        manifest: The model's manifest.
        store: URL of the repository.
        record: The engine's build record.
    """

    manifest: str
    store: str
    record: str


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its preprocessing.

    Attributes:
        name: timm's name.
        input_size: Height and width in pixels.
        crop: Fraction of the resized photo that the centre crop keeps.
        interpolation: Interpolation filter of the resize.
        mean: Per channel.
        std: Per channel.
        half: Whether it runs in fp16 on a GPU.
        stored: Its weights; if None they are random, which takes the same time.
    """

    name: str
    input_size: int
    crop: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    half: bool
    stored: Stored | None = None


class TorchLoop:
    """A loop in a child process, as a context manager.

    Args:
        python: A Python with torch and timm.
        way: Which loop.
        network: The network.
        photos: Folder of JPEG files.
        batch: Batch size.
    """

    def __init__(self, python: str, way: Way, network: Network, photos: Path, batch: int) -> None:
        settings = json.dumps({**asdict(network), "photos": str(photos), "batch": batch})
        self._process = subprocess.Popen(
            [python, str(Path(__file__)), way, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=_environment(python),
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
            raise RuntimeError(
                f"the PyTorch loop exited with status {self._process.wait()}; its output is above; "
                "give a Python with torch and timm by --torch-python"
            )
        return line.removeprefix(_READY).strip()


def _environment(python: str) -> dict[str, str]:
    """Returns the environment of a loop: another Python must not get this one's libraries."""
    if Path(python).resolve() == Path(sys.executable).resolve():
        return dict(os.environ)
    own = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH")
    return {name: value for name, value in os.environ.items() if name not in own}


def plain_loop(network: Network, files: list[Path], batch: int) -> tuple[Callable[[], None], str]:
    """Returns the plain loop and its name."""
    model = model_of(network)  # first: it makes timm importable with a CPU build of torch

    import torch

    on_gpu = torch.cuda.is_available()
    half = on_gpu and network.half
    device, dtype = torch.device("cuda" if on_gpu else "cpu"), torch.half if half else torch.float
    model = model.eval().to(device, dtype)
    if on_gpu:
        model = model.to(memory_format=torch.channels_last)
    loader = loader_of(network, files, batch)

    def run() -> None:
        with torch.inference_mode():
            rows = [
                model(images.to(device, dtype, non_blocking=True)).float().cpu()
                for images in loader
            ]
        assert sum(map(len, rows)) == len(files)

    return run, f"PyTorch loop, {'fp16, channels_last' if half else 'fp32'}"


def loader_of(network: Network, files: list[Path], batch: int) -> Any:
    """Returns a ``DataLoader`` of photos with timm's transform, a process on each core."""
    import torch
    from PIL import Image
    from timm.data import create_transform
    from torch.utils.data import DataLoader, Dataset

    transform = create_transform(
        input_size=(3, network.input_size, network.input_size),
        interpolation=network.interpolation,
        mean=network.mean,
        std=network.std,
        crop_pct=network.crop,
    )

    class Photos(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> Any:
            with Image.open(files[number]) as photo:
                return transform(photo.convert("RGB"))

    return DataLoader(
        Photos(), batch_size=batch, num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def strong_loop(network: Network, files: list[Path], batch: int) -> tuple[Callable[[], None], str]:
    """Returns the strong loop and its name."""
    model = model_of(network)

    import torch

    if not torch.cuda.is_available():
        return _strong_on_cpu(network, model, files, batch)
    dtype = torch.half if network.half else torch.float
    model = model.eval().to("cuda", dtype).to(memory_format=torch.channels_last)
    compiled = torch.compile(model)
    pool = ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0))))
    prepare = _gpu_transform(network, dtype)

    def decoded() -> Iterator[Any]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        for start in range(0, len(files), batch):
            contents = list(pool.map(Path.read_bytes, files[start : start + batch]))
            with torch.cuda.stream(stream), torch.inference_mode():
                images = prepare(contents)
                yield images, stream.record_event()

    def run() -> None:
        rows: list[Any] = []
        with torch.inference_mode():
            for images, ready in _ahead(decoded):
                torch.cuda.current_stream().wait_event(ready)
                images.record_stream(torch.cuda.current_stream())
                rows.append(compiled(images))  # type: ignore[no-untyped-call]
                if len(rows) > 1:
                    rows[-2] = rows[-2].float().cpu()
            rows[-1] = rows[-1].float().cpu()
        assert sum(map(len, rows)) == len(files)

    name = "fp16" if network.half else "fp32"
    return run, f"strong PyTorch loop (GPU decoding and resize, compiled, overlapped), {name}"


def _strong_on_cpu(
    network: Network, model: Any, files: list[Path], batch: int
) -> tuple[Callable[[], None], str]:
    import torch

    compiled = torch.compile(model.eval().to(memory_format=torch.channels_last))
    loader = loader_of(network, files, batch)

    def run() -> None:
        with torch.inference_mode():
            rows = [
                compiled(images.to(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
                for images in loader
            ]
        assert sum(map(len, rows)) == len(files)

    return run, "strong PyTorch loop (compiled, channels_last), fp32"


def _gpu_transform(network: Network, dtype: Any) -> Callable[[list[bytes]], Any]:
    """Returns a function from JPEG files to a normalised batch on the GPU."""
    import torch
    from torch.nn.functional import interpolate
    from torchvision.io import ImageReadMode, decode_jpeg

    mean, std = (
        255 * torch.tensor(values, device="cuda").view(1, 3, 1, 1)
        for values in (network.mean, network.std)
    )
    side, shorter = network.input_size, int(network.input_size / network.crop)

    def resize(images: Any) -> Any:
        height, width = images.shape[2:]
        scale = shorter / min(height, width)
        size = [max(shorter, int(height * scale)), max(shorter, int(width * scale))]
        resized = interpolate(images.float(), size, mode=network.interpolation, antialias=True)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        return resized[:, :, top : top + side, left : left + side]

    def prepare(contents: list[bytes]) -> Any:
        data = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
        images = decode_jpeg(data, mode=ImageReadMode.RGB, device="cuda")
        if len({image.shape for image in images}) == 1:
            resized = resize(torch.stack(images))
        else:
            resized = torch.cat([resize(image[None]) for image in images])
        batch = (resized.clamp_(0, 255) - mean) / std
        return batch.to(dtype, memory_format=torch.channels_last)

    return prepare


def _ahead(items: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Yields items that a thread makes, a few ahead."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=_AHEAD)

    def work() -> None:
        try:
            for item in items():
                ready.put(item)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def model_of(network: Network) -> Any:
    """Returns the network, with its stored weights or random ones."""
    if network.stored is not None:
        from builders.measure.engine_vs_pytorch import backbone_of
        from zoo.repository.repository import Repository
        from zoo.schema.manifest import load_manifest
        from zoo.schema.records import BuildRecord
        from zoo.stores import open_store

        path = Path(network.stored.manifest)
        record = BuildRecord.model_validate_json(Path(network.stored.record).read_bytes())
        repository = Repository(open_store(network.stored.store))
        return backbone_of(repository, load_manifest(path), path.parent, record)
    import timm

    return timm.create_model(network.name, num_classes=0)


def main(way: Way, settings: str) -> int:
    """Answers each line on stdin after a pass over the photos."""
    values = json.loads(settings)
    files, batch = sorted(Path(values.pop("photos")).rglob("*.jpg")), values.pop("batch")
    stored = values.pop("stored")
    network = Network(**values, stored=stored and Stored(**stored))
    run, name = (plain_loop if way == "plain" else strong_loop)(network, files, batch)
    print(_READY, name, flush=True)
    for _ in sys.stdin:
        run()
        print(_READY, flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(*sys.argv[1:]))  # type: ignore[arg-type]
