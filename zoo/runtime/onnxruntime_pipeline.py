"""Runs the batches of a pass on the CPU: a piece on each core, each on one thread.

Threads that share a batch wait for one another after each layer, and for whoever decodes photos on
the cores meanwhile. Pieces on threads of their own wait for nobody. On two cores, features of all
networks that were compared are those of the whole batch to the bit, up to the largest batch; on
more, or beyond it, a few networks (LeViT, EfficientFormer) differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

from zoo.runtime.base import Features, Floats, Images, Running, Session, check_images
from zoo.util.errors import RunError

_FEWEST_ROWS = 2
"""Rows of a piece: a single one may be multiplied by another routine, and round otherwise."""


class PiecewisePipeline:
    """A :class:`zoo.runtime.base.Pipeline` that runs pieces of batches at once.

    Args:
        session: The engine on all cores, for batches that can't be divided; it is not closed.
        opened: Loads the engine for a number of threads.
        cores: Number of cores.
    """

    ahead = 1

    def __init__(self, session: Session, opened: Callable[[int], Session], cores: int) -> None:
        self._session, self._opened, self._cores = session, opened, cores
        self._pieces = 0
        self._ended = ExitStack()

    def host_memory(self, shape: tuple[int, ...]) -> Images:
        """See :meth:`zoo.runtime.base.Pipeline.host_memory`."""
        return np.empty(shape, np.float32)

    def begin(self, images: Images) -> Running:
        """See :meth:`zoo.runtime.base.Pipeline.begin`; the first batch is the largest."""
        check_images(images, self._session.input_shape)
        if not self._pieces:
            self._open(min(self._cores, _most_pieces(images)))
        pieces = np.array_split(images.copy(), min(self._pieces, _most_pieces(images)))
        return _Pieces([self._pool.submit(self._session.features, piece) for piece in pieces])

    def close(self) -> None:
        """Waits for the pieces that are being run, and drops the others."""
        self._ended.close()

    def _open(self, pieces: int) -> None:
        if pieces > 1:
            try:
                self._session = self._ended.enter_context(self._opened(self._cores // pieces))
            except RunError:  # its file has changed, or memory is too small for two: only slower
                pieces = 1
        self._pool = ThreadPoolExecutor(pieces, "engine")
        self._ended.callback(self._pool.shutdown, cancel_futures=True)
        self._pieces = pieces


def _most_pieces(images: Images) -> int:
    return max(1, len(images) // _FEWEST_ROWS)


class _Pieces:
    """A batch whose pieces are being run."""

    def __init__(self, pieces: Sequence[Future[Features]]) -> None:
        self._pieces = pieces

    def features(self, into: Floats | None = None) -> Floats:
        """See :meth:`zoo.runtime.base.Running.features`."""
        found = [piece.result() for piece in self._pieces]
        return np.concatenate(found, out=into, casting="same_kind")
