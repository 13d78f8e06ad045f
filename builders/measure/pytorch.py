"""Times backbones in PyTorch on this machine's GPU, the baseline that engines are compared with.

fp16, channels_last, inputs on the GPU, timed with CUDA events: eager, and ``torch.compile``
replayed as a CUDA graph. Weights are randomly initialised, since speed does not depend on them.
Nothing else should use the GPU meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from builders.export import backbone
from builders.measure.torch_speed import TorchSpeed, TorchTimes
from builders.verify.spread import LEAST_RUNS, Spread, spread
from zoo.client.host import describe_machine
from zoo.schema.manifest import Manifest, sides
from zoo.util.errors import RunError

_SECONDS = 1.0  # per batch size and mode
_TRIAL_RUNS, _MOST_RUNS = 5, 100


def measure(manifest: Manifest, batches: Sequence[int], *, with_compile: bool = True) -> TorchSpeed:
    """Times a model's backbone in PyTorch, in fp16.

    Args:
        manifest: The model.
        batches: Batch sizes.
        with_compile: Whether to time ``torch.compile`` too, which takes minutes.

    Raises:
        RunError: PyTorch finds no GPU.
    """
    if not torch.cuda.is_available():
        raise RunError(
            f"PyTorch {torch.__version__} finds no GPU",
            hint="a GPU, its driver and a CUDA build of torch are needed; zoo-farm compare times "
            "CPU engines",
        )
    model: Any = backbone.Backbone(backbone.create(manifest), manifest.backbone)
    model = model.cuda().half().to(memory_format=torch.channels_last)
    height, width = sides(manifest.preprocess.input_size)
    rows = []
    with torch.inference_mode():
        for batch in batches:
            images = torch.randn(batch, 3, height, width, device="cuda", dtype=torch.float16)
            images = images.contiguous(memory_format=torch.channels_last)
            eager = _spread_ms(partial(model, images))
            row = TorchTimes(batch=batch, eager_ms=eager.median, eager_interval_ms=eager.interval)
            if with_compile:
                torch.compiler.reset()
                compiled = torch.compile(model, dynamic=False)
                replayed = _spread_ms(_captured(partial(compiled, images)))
                changes = {
                    "compiled_ms": replayed.median, "compiled_interval_ms": replayed.interval,
                }  # fmt: skip
                row = row.model_copy(update=changes)
            rows.append(row)
            torch.cuda.empty_cache()
    return TorchSpeed(
        model=manifest.id,
        torch=torch.__version__,
        precision="fp16",
        machine=describe_machine(),
        batches=tuple(rows),
    )


def _captured(run: Callable[[], Any]) -> Callable[[], None]:
    """Captures the GPU work of ``run`` as a CUDA graph and returns its replay."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], None] = graph.replay
    return replay


def _spread_ms(run: Callable[[], Any]) -> Spread:
    """Returns the durations of a run in milliseconds, by CUDA events."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    trial = _durations_ms(run, _TRIAL_RUNS)
    runs = int(1e3 * _SECONDS / max(1e-3, float(np.median(trial))))
    return spread(_durations_ms(run, max(LEAST_RUNS, min(_MOST_RUNS, runs))))


def _durations_ms(run: Callable[[], Any], runs: int) -> list[float]:
    new_event: Any = torch.cuda.Event
    marks = [new_event(enable_timing=True) for _ in range(runs + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in pairwise(marks)]
