"""Lanes: what a call of a TensorRT session runs on: a stream, and contexts with their buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.runtime import cuda
from zoo.runtime.base import Features
from zoo.runtime.profiles import pieces
from zoo.runtime.tensorrt.engine import FLOAT_BYTES, Bound, LoadedEngine
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Device, Stream


class Lane:
    """A stream, with a context and buffers for each profile that has been used on it."""

    def __init__(self, engine: LoadedEngine) -> None:
        self.engine = engine
        self.device: Device = engine.device
        self.stream: Stream = self.device.create_stream()
        self._bound: dict[int, Bound] = {}

    def run_host(self, images: npt.NDArray[Any]) -> Features:
        """Uploads images of the engine's input type, runs them and downloads the features."""
        features = np.empty((len(images), self.engine.width), np.float32)
        for piece in pieces(self.engine.profiles, len(images)):
            bound = self.on(piece.profile)
            rows = slice(piece.start, piece.start + piece.rows)
            cuda.copy_in(int(bound.images.handle), images[rows], self.stream)
            self.run(bound, piece.batch, int(bound.images.handle), int(bound.features.handle))
            cuda.copy_out(features[rows], int(bound.features.handle), self.stream)
        self.stream.sync()
        return features

    def run_device(self, images: Any) -> cuda.DeviceArray:
        """Runs images in GPU memory, without a copy if possible; features stay on the GPU."""
        view = cuda.device_view(images, self.stream)
        engine = self.engine
        cuda.check_device_images(view, engine.input_shape, engine.image_type, self.device.device_id)
        rows, width = int(view.shape[0]), self.engine.width
        result = self.device.allocate(FLOAT_BYTES * rows * width, stream=self.stream)
        image = self.engine.image_bytes
        for piece in pieces(self.engine.profiles, rows):
            bound = self.on(piece.profile)
            source = int(view.ptr) + piece.start * image
            target = int(result.handle) + piece.start * width * FLOAT_BYTES
            in_place = piece.batch == piece.rows and not self.engine.cuda_graphs
            aligned = source % cuda.ALIGNMENT == 0 and target % cuda.ALIGNMENT == 0
            if in_place and aligned:
                self.run(bound, piece.batch, source, target)
                continue
            inside, outside = int(bound.images.handle), int(bound.features.handle)
            cuda.copy_over(inside, source, piece.rows * image, self.stream)
            self.run(bound, piece.batch, inside, outside)
            cuda.copy_over(target, outside, piece.rows * width * FLOAT_BYTES, self.stream)
        self.stream.sync()
        return cuda.DeviceArray(result, (rows, width))

    def time(self, batch: int, profile: int, runs: int, *, cuda_graph: bool) -> list[float]:
        """Times runs on the buffers of a profile; see ``TensorRTSession.time_on_device``."""
        from cuda.core import EventOptions

        bound = self.on(profile)
        random = np.random.default_rng(0)
        images = random.standard_normal((batch, *self.engine.input_shape), dtype=np.float32)
        images = images.astype(self.engine.image_type, copy=False)
        cuda.copy_in(int(bound.images.handle), images, self.stream)
        for _ in range(3):
            self._enqueue(bound, batch, int(bound.images.handle), int(bound.features.handle))
        if cuda_graph:
            self._replay(bound, batch)
        self.stream.sync()
        pairs = []
        options = EventOptions(timing_enabled=True)
        for _ in range(runs):
            before = self.stream.record(options=options)
            if cuda_graph:
                self._replay(bound, batch)
            else:
                self._enqueue(bound, batch, int(bound.images.handle), int(bound.features.handle))
            pairs.append((before, self.stream.record(options=options)))
        self.stream.sync()
        return [float(after - before) for before, after in pairs]

    def close(self) -> None:
        """Releases the lane's contexts, stream and memory."""
        for bound in self._bound.values():
            bound.graphs.clear()
            bound.context = None
            bound.images.close(self.stream)
            bound.features.close(self.stream)
        self._bound.clear()
        self.stream.close()

    def on(self, profile: int) -> Bound:
        """Returns the context of a profile, creating it on first use."""
        if profile not in self._bound:
            self._bound[profile] = self.engine.new_context(profile, self.stream)
        return self._bound[profile]

    def run(self, bound: Bound, batch: int, images: int, features: int) -> None:
        """Enqueues a batch.

        Args:
            bound: Context and buffers to use.
            batch: Batch size.
            images: GPU address of the images; with CUDA graphs, the buffer of ``bound``.
            features: GPU address to write features to.
        """
        if not self.engine.cuda_graphs:
            self._enqueue(bound, batch, images, features)
            return
        if batch not in bound.graphs:
            self._enqueue(bound, batch, images, features)  # TensorRT wants one run before a capture
        self._replay(bound, batch)

    def _enqueue(
        self, bound: Bound, batch: int, images: int, features: int, stream: Stream | None = None
    ) -> None:
        context, engine = bound.context, self.engine
        if bound.batch != batch:
            if not context.set_input_shape(engine.input, (batch, *engine.input_shape)):
                raise RunError(f"TensorRT rejects a batch of {batch}: {engine.last_error}")
            bound.batch = batch
        context.set_tensor_address(engine.input, images)
        context.set_tensor_address(engine.output, features)
        if not context.execute_async_v3(int((stream or self.stream).handle)):
            raise RunError(f"TensorRT fails to run a batch of {batch}: {engine.last_error}")

    def _replay(self, bound: Bound, batch: int) -> None:
        if batch not in bound.graphs:
            builder = self.stream.create_graph_builder().begin_building("thread_local")
            buffers = int(bound.images.handle), int(bound.features.handle)
            self._enqueue(bound, batch, *buffers, stream=builder.stream)
            bound.graphs[batch] = builder.end_building().complete()
        bound.graphs[batch].launch(self.stream)
