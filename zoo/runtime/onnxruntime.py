"""Sessions of ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from zoo.runtime.base import Features, Images, Pipeline, check_images, check_size, in_pieces
from zoo.schema.keys import BuildInputs
from zoo.schema.precisions import Precision
from zoo.util.causes import cause_of
from zoo.util.errors import MissingPackageError, RunError
from zoo.util.files import identity_of


def session_options(threads: int | None = None) -> Any:
    """Returns session options with little logging and as many threads as available cores.

    By default ONNX Runtime pins a thread to every core of the machine, including cores that this
    process may not run on.

    With ``OMP_WAIT_POLICY=PASSIVE`` threads that wait for others sleep, as those of PyTorch do.
    They spin by default, which is faster if nothing else runs, and else takes cores from it.

    Args:
        threads: Threads to use; all of this process's cores when None.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "onnxruntime is not installed", hint="pip install 'caft-zoo[onnxruntime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRuntimeSession:
    """A :class:`~zoo.runtime.base.Session` of ONNX Runtime. Safe to use from several threads.

    Args:
        engine: The optimised ONNX model.
        max_batch: Largest batch to run at once.
        threads: Threads to use; all of this process's cores when None.
        layouts: Whether to arrange tensors for this machine's instructions, without which networks
            of convolutions take twice the time.
    """

    def __init__(
        self, engine: Path, max_batch: int, threads: int | None = None, *, layouts: bool = False
    ) -> None:
        options = session_options(threads)
        self._engine, self._layouts, self._identity = engine, layouts, _identity(engine)
        self._threads: int = options.intra_op_num_threads
        import onnxruntime

        # The build fused what is valid on every CPU.
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if layouts else level.ORT_DISABLE_ALL
        )
        # Between batches the cores belong to whoever decodes the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(engine), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            (self._input,) = self._session.get_inputs()
            _, channels, height, width = self._input.shape
            self._shape = (int(channels), int(height), int(width))
        except Exception as error:  # onnxruntime raises classes of its own for each status
            raise RunError(
                f"{engine.name}: onnxruntime {onnxruntime.__version__} can't load it: "
                f"{cause_of(error)}",
                hint="it may require another onnxruntime version; zoo show lists requirements",
            ) from error
        self._name = engine.name
        self._max_batch = max_batch

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self._shape

    def features(self, images: Images) -> Features:
        """Computes features, ``(N, feature_dim)`` float32, of ``(N, 3, H, W)`` float32 images."""
        check_images(images, self._shape)
        self._check_open()
        return in_pieces(self._run, images, self._max_batch)

    def pipeline(self, *, patient: bool = False) -> AbstractContextManager[Pipeline]:
        """See :class:`zoo.runtime.base.Pipelined`; it loads the engine again, on fewer threads."""
        from zoo.runtime.onnxruntime_pipeline import PiecewisePipeline

        self._check_open()
        return closing(PiecewisePipeline(self, self._with_threads, self._threads))

    def _with_threads(self, threads: int) -> OnnxRuntimeSession:
        """Loads the engine again, from the file that was loaded first.

        Raises:
            RunError: The file is gone or has changed, so that it may be another engine.
        """
        if _identity(self._engine) != self._identity:
            raise RunError(f"{self._name} has changed since it was loaded")
        return OnnxRuntimeSession(self._engine, self._max_batch, threads, layouts=self._layouts)

    def _check_open(self) -> None:
        if self._session is None:
            raise RunError("the session is closed")

    def _run(self, images: Images) -> Features:
        try:
            features: Features = self._session.run(None, {self._input.name: images})[0]
        except Exception as error:  # onnxruntime raises classes of its own for each status
            raise RunError(
                f"{self._name}: onnxruntime can't run it: {cause_of(error)}",
                hint="download it again with zoo pull; if that does not help, memory may have run "
                "out: try a smaller batch",
            ) from error
        return features

    def close(self) -> None:
        """Releases the model."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _identity(file: Path) -> tuple[int, ...] | None:
    """Returns what tells that a file has not changed; None if it is gone."""
    try:
        return identity_of(file.stat())
    except OSError:
        return None


def open_session(
    engine: Path, inputs: BuildInputs, size: int | None = None, *, threads: int | None = None
) -> OnnxRuntimeSession:
    """Loads an engine, by default on all of this process's cores.

    Raises:
        RunError: The file is missing or truncated, or can't be loaded.
    """
    check_size(engine, size)
    # Not in int8: roundings fall otherwise and add up to other features than were verified.
    layouts = inputs.precision == Precision.FP32
    return OnnxRuntimeSession(engine, inputs.batch.max, threads, layouts=layouts)
