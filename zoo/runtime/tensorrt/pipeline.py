"""Pipeline of a TensorRT session: uploads a batch while the previous one runs.

Uses three streams: one for uploads, the lane's for the engine, and a third for downloads. Features
are downloaded to page-locked memory as soon as the engine has them, and copied from there when they
are fetched. A thread that waits leaves its core to others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.runtime import cuda
from zoo.runtime.base import Features, Floats, Images, check_images
from zoo.runtime.profiles import Piece, pieces
from zoo.runtime.tensorrt.engine import FLOAT_BYTES, Bound
from zoo.runtime.tensorrt.lane import Lane
from zoo.util.errors import RunError

if TYPE_CHECKING:
    from cuda.core import Buffer, Event, Stream


@dataclass(kw_only=True)
class _Place:
    """GPU memory for the images of a batch, and the event after which it may be overwritten."""

    images: Buffer
    read: Event


class LanePipeline:
    """A :class:`~zoo.runtime.base.DevicePipeline` with exclusive use of a lane.

    Args:
        lane: Stream that the engine runs on, with its contexts and buffers.
        patient: Whether a wait leaves the core to others.
    """

    ahead = 1

    def __init__(self, lane: Lane, *, patient: bool = False) -> None:
        self._lane = lane
        self._record = cuda.record if patient else _record
        self._in: Stream = lane.device.create_stream()
        self._out: Stream = lane.device.create_stream()
        self._places: dict[int, list[_Place]] = {}
        self._own: list[Buffer] = []
        self._host: list[cuda.HostMemory] = []
        self._landings: list[cuda.HostMemory] = []
        """Those of :attr:`_host` for features that hold none."""

    def host_memory(self, shape: tuple[int, ...]) -> Images:
        """Returns page-locked memory, or pageable memory if it can't be locked."""
        try:
            memory = self._lane.engine.host.take(shape)
        except RunError:
            return np.empty(shape, np.float32)
        self._host.append(memory)
        return memory.array

    def begin(self, images: Images) -> _Running:
        """Uploads images, waiting only for the upload, and starts the engine."""
        lane, engine = self._lane, self._lane.engine
        check_images(images, engine.input_shape)
        images = np.ascontiguousarray(images, engine.image_type)
        result = self._result(len(images))
        for piece in pieces(engine.profiles, len(images)):
            bound, place = lane.on(piece.profile), self._next_place(piece.profile)
            self._in.wait(place.read)
            rows = slice(piece.start, piece.start + piece.rows)
            cuda.copy_in(int(place.images.handle), images[rows], self._in)
            copied = self._in.record()
            lane.stream.wait(copied)
            self._run(piece, bound, int(place.images.handle), result)
            place.read = lane.stream.record()
        self._record(self._in).sync()
        return self._running(result, len(images))

    def begin_on_device(self, images: cuda.DeviceBatch) -> _Running:
        """Runs images where they are, or from the engine's own buffer where it needs that."""
        lane, engine = self._lane, self._lane.engine
        result = self._result(images.rows)
        lane.stream.wait(images.ready)
        for piece in pieces(engine.profiles, images.rows):
            bound = lane.on(piece.profile)
            source = images.address + piece.start * engine.image_bytes
            whole = piece.batch == piece.rows and source % cuda.ALIGNMENT == 0
            if engine.cuda_graphs or not whole:
                inside = int(bound.images.handle)
                cuda.copy_over(inside, source, piece.rows * engine.image_bytes, lane.stream)
                source = inside
            self._run(piece, bound, source, result)
        images.read = self._record(lane.stream)
        return self._running(result, images.rows)

    def _result(self, rows: int) -> Buffer:
        """Returns memory of the GPU for the features of a batch."""
        size = FLOAT_BYTES * self._lane.engine.width * rows
        return self._lane.device.allocate(size, stream=self._lane.stream)

    def _run(self, piece: Piece, bound: Bound, images: int, result: Buffer) -> None:
        """Runs a piece of a batch and moves its features to their place in the result."""
        lane, row = self._lane, FLOAT_BYTES * self._lane.engine.width
        features = int(bound.features.handle)
        lane.run(bound, piece.batch, images, features)
        target = int(result.handle) + piece.start * row
        cuda.copy_over(target, features, piece.rows * row, lane.stream)

    def _running(self, result: Buffer, rows: int) -> _Running:
        self._out.wait(self._lane.stream.record())
        shape = (rows, self._lane.engine.width)
        landing = self._landing(rows)
        return _Running(result, shape, self._out, self._landings, landing, self._record)

    def _landing(self, rows: int) -> cuda.HostMemory | None:
        """Returns page-locked memory for features; None if there is none for so many rows."""
        engine = self._lane.engine
        most = max(profile.max for profile in engine.profiles)
        if rows > most:
            return None
        if not self._landings:
            with suppress(RunError):  # the system locks no more
                self._host.append(engine.host.take((most, engine.width)))
                self._landings.append(self._host[-1])
        return self._landings.pop() if self._landings else None

    def close(self) -> None:
        """Waits for running work and releases the pipeline's memory."""
        self._in.sync()
        self._lane.stream.sync()
        self._out.sync()
        for buffer in self._own:
            buffer.close(self._lane.stream)
        self._lane.engine.host.give_back(self._host)
        self._places.clear()
        self._landings.clear()
        self._own.clear()
        self._in.close()
        self._out.close()

    def _next_place(self, profile: int) -> _Place:
        """Returns the memory for the next batch; two places alternate if memory suffices."""
        if profile not in self._places:
            self._places[profile] = self._make_places(profile)
        places = self._places[profile]
        places.append(places.pop(0))
        return places[-1]

    def _make_places(self, profile: int) -> list[_Place]:
        lane, engine = self._lane, self._lane.engine
        buffers = [lane.on(profile).images]
        size = engine.profiles[profile].max * engine.image_bytes
        # A captured graph reads the context's own buffer.
        if not engine.cuda_graphs and cuda.free_memory() > size:
            self._own.append(lane.device.allocate(size, stream=lane.stream))
            buffers.append(self._own[-1])
        allocated = lane.stream.record()  # allocation is ordered by the stream
        return [_Place(images=buffer, read=allocated) for buffer in buffers]


def _record(stream: Stream) -> Event:
    return stream.record()


class _Running:
    """A submitted batch.

    Args:
        result: Its features on the GPU, which are freed once they have been downloaded.
        shape: Of the features.
        out: The stream for downloads, which waits for the engine.
        landings: Where the memory for the features goes once it is free.
        landing: Page-locked memory for the features; without it, they are downloaded when they are
            fetched.
        record: Records an event.
    """

    def __init__(
        self,
        result: Buffer,
        shape: tuple[int, int],
        out: Stream,
        landings: list[cuda.HostMemory],
        landing: cuda.HostMemory | None,
        record: Callable[[Stream], Event],
    ) -> None:
        self._result = result
        self._shape = shape
        self._out = out
        self._landings = landings
        self._landing = landing
        if landing is not None:
            self._download(landing.array[: shape[0]])
        self._done = record(out)

    def features(self, into: Floats | None = None) -> Floats:
        """Waits for the engine and returns the features."""
        self._done.sync()
        if self._landing is None:
            downloaded = np.empty(self._shape, np.float32)
            self._download(downloaded)
            self._out.sync()
            if into is None:
                return downloaded
            into[:] = downloaded
            return into
        features = np.empty(self._shape, np.float32) if into is None else into
        features[:] = self._landing.array[: len(features)]
        self._landings.append(self._landing)
        return features

    def _download(self, features: Features) -> None:
        cuda.copy_out(features, int(self._result.handle), self._out)
        self._result.close(self._out)
