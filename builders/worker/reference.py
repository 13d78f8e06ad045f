"""Times an engine in turns with the same model in PyTorch, where the worker has PyTorch.

The ratio is what is published of an engine's speed on a CPU: it holds on a machine that is slow for
a while, as latencies do not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from builders.jobs.messages import VerificationSpec
from builders.jobs.progress import Event, Report
from builders.verify.in_turns import Row, compared, row_of, untimed
from zoo.runtime import Session
from zoo.runtime.base import DeviceTimed
from zoo.schema.manifest import Manifest
from zoo.schema.measurements import BatchTimes, ComparedBody
from zoo.util.causes import cause_of
from zoo.util.errors import ZooError

REFERENCE = "ZOO_FARM_REFERENCE"
"""Environment variable: ``0`` leaves the comparison out, and saves its seconds and memory."""

ON_A_GPU = "on a GPU, zoo-farm torch-speed and zoo-farm compare --torch-speed measure it"
NO_PYTORCH = "the worker has no PyTorch"
ENDED = "PyTorch did not run: it ended its process"
LEFT_OUT = f"the comparison was left out: {REFERENCE}=0, or the job's memory is limited"

_SECONDS = 0.8  # per batch size, both together
_MOST_SECONDS = (10.0, 4.0)  # of the first batch size, and of each larger one


def measure(
    session: Session,
    spec: VerificationSpec,
    timed: Sequence[BatchTimes],
    report: Report,
    *,
    keep_noise: bool,
) -> tuple[ComparedBody | None, str | None]:
    """Compares an engine with PyTorch at the batch sizes that were quiet when it was benchmarked.

    Nothing that goes wrong here says anything about the engine: it is the reason why there is no
    ratio.

    Returns:
        The comparison, None without any ratio; and why there is none, None if there is one.
    """
    manifest = spec.reference
    if manifest is None or not spec.benchmark:
        return None, None
    if os.environ.get(REFERENCE) == "0":
        return None, LEFT_OUT
    if isinstance(session, DeviceTimed):
        return None, ON_A_GPU
    alone = {row.batch: row.latency_ms for row in timed if row.batch and row.latency_ms}
    if not alone:  # PyTorch would need minutes on such a machine, for nothing
        return None, f"at every batch size; at {spec.benchmark[0]}: {timed[0].not_measured}"
    try:
        rows, how = _rows(session, manifest, alone, report)
    except ImportError:
        return None, NO_PYTORCH
    except (ZooError, MemoryError, RuntimeError, ValueError, OSError) as error:
        return None, f"PyTorch did not run: {cause_of(error)}"
    body = compared(rows, how, keep_noise=keep_noise)
    if body.batches:
        return body, None
    first = rows[0]
    return None, f"at every batch size; at {first.batch}: {first.noisy}"


def _rows(
    session: Session, manifest: Manifest, alone: Mapping[int, float], report: Report
) -> tuple[list[Row], str]:
    """Times the batch sizes; weights are fresh ones, since speed does not depend on them.

    Args:
        session: The engine.
        manifest: The model.
        alone: The engine's own latency at each batch size, milliseconds.
        report: Receives progress events.
    """
    import torch

    from builders.export import backbone

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = backbone.Backbone(backbone.create(manifest), manifest.backbone)
    rows: list[Row] = []
    before: Row | None = None
    with torch.inference_mode():
        for done, (batch, engine_ms) in enumerate(alone.items()):
            most_seconds = _MOST_SECONDS[min(done, 1)]
            if before and (row := untimed(batch, engine_ms, before, most_seconds)):
                rows.append(row)
                continue
            note = f"in turns with PyTorch, batch {batch}"
            report(Event(stage="benchmark", done=done, total=len(alone), note=note))
            shape = (batch, *session.input_shape)
            images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            engine = partial(session.features, images)
            run = partial(model, torch.from_numpy(images))
            before = row_of(batch, engine, run, seconds=_SECONDS, most_seconds=most_seconds)
            rows.append(before)
    report(Event(stage="benchmark", done=len(alone), total=len(alone)))
    return rows, f"torch {torch.__version__}, fp32, eager, fresh weights, in turns with the engine"
