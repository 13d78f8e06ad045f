"""A process that runs an engine on a GPU of its own for a pass: samples in, features out.

A process per GPU, because photos hold the GIL for a while each, and because TensorRT and CUDA take
the GPU of a process from its environment. ``python -m zoo.caft.engine_process FD`` is the process's
side; messages are pickled, and come from and go to its parent only. Features come back in shared
memory.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.caft.augment import Augmentation
from zoo.caft.card import Storage
from zoo.caft.decode import Decoded
from zoo.caft.decode_process import reason_of
from zoo.caft.feed import DecodeMode, check_gpu_decodes, open_feed
from zoo.caft.file_read import FileRead, Stamp
from zoo.caft.files import STORED, sums_of
from zoo.caft.mapped_memory import MappedPieces
from zoo.caft.runs import FeedRuns, Result, Room
from zoo.caft.sample import Sample
from zoo.caft.shared_memory import FilledPieces, Piece
from zoo.inference.extractor import Extractor
from zoo.inference.formats import accept_large_photos
from zoo.inference.gpu import turns
from zoo.inference.preprocess import Exif
from zoo.runtime import open_session
from zoo.schema.records import BuildRecord
from zoo.util.errors import DatasetError, RunError, ZooError
from zoo.util.faults import MachineError, persistently
from zoo.util.garbage import collect_seldom


@dataclass(frozen=True, kw_only=True)
class Task:
    """The task of a process.

    Attributes:
        engine: Path of the engine file, whose digest has been checked.
        record: Its build record, as JSON.
        augmentation: The views of each image.
        storage: Data type of the features that are wanted.
        samples: Samples per batch.
        workers: Number of decoding threads.
        decode: How photos are decoded.
        exif: Whether to apply the EXIF orientation of photos.
        threads: Threads of an engine on the CPU; by default one per core.
        turns: Descriptor that processes on the same GPU share; see :mod:`zoo.inference.gpu.turns`.
    """

    engine: Path
    record: bytes
    augmentation: Augmentation
    samples: int
    workers: int
    decode: DecodeMode
    exif: Exif
    threads: int | None = None
    storage: Storage = "fp32"
    turns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Returns an image that the parent has read, or raises what that raised."""

    image: Any = None
    error: Exception | None = None

    def __call__(self) -> Any:
        """See :attr:`zoo.caft.sample.Sample.read`."""
        if self.error is not None:
            raise self.error
        return self.image


Outcome = tuple["str | None", str, "str | None", "Stamp | None"]
"""What the parent does not know of a :class:`zoo.caft.decode.Decoded`: label, digest and error, and
the stamp of its file. Plain tuples, which are pickled fastest."""


def outcome_of(sample: Sample, outcome: Outcome) -> Decoded:
    """Returns what a process has told of the parent's sample."""
    label, sha256, error, stamp = outcome
    if isinstance(sample.read, FileRead):
        sample.read.stamp = stamp
    return Decoded(sample=sample, label=label, sha256=sha256, error=error)


def _told_of(decoded: Decoded) -> Outcome:
    read = decoded.sample.read
    stamp = read.stamp if isinstance(read, FileRead) else None
    return decoded.label, decoded.sha256, decoded.error, stamp


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """An error that ended the process."""

    error: ZooError


class EndedError(RunError):
    """The process has ended without saying why."""


class EngineProcess:
    """The parent's side of a process.

    Args:
        task: What it does.
        name: Its name for messages, such as ``GPU 1``.
        environment: Environment variables of its own.

    Raises:
        RunError: It does not start.
    """

    def __init__(self, task: Task, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._type = np.dtype(STORED[task.storage])
        ours, theirs = socket.socketpair()
        self._socket = ours
        with theirs:
            paths = os.pathsep.join(path for path in sys.path if path)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *(() if task.turns is None else (task.turns,))),
                # nothing there needs threads for matrices; to start them takes a second of a core
                env={
                    **os.environ,
                    "PYTHONPATH": paths,
                    "OPENBLAS_NUM_THREADS": "1",
                    **environment,
                },
                start_new_session=True,  # Ctrl-C goes to the parent only
            )
        self._connection = Connection(os.dup(ours.fileno()))
        self._pieces = MappedPieces(ours)
        self._sent(task)

    def ready(self) -> tuple[str, ...]:
        """Waits until the engine is loaded, and returns the names of the decoders."""
        decoders: tuple[str, ...] = self._received()
        return decoders

    def send(self, samples: Sequence[Sample]) -> None:
        """Hands over the samples of a batch; may wait until the process reads them.

        Raises:
            RunError: The process has ended.
        """
        self._sent((self._pieces.free(), [_portable(sample) for sample in samples]))

    def finish(self) -> None:
        """Ends a run: no more samples follow until those sent so far are done.

        Raises:
            RunError: The process has ended.
        """
        self._sent(None)

    def receive(self) -> tuple[list[Outcome], npt.NDArray[Any], npt.NDArray[np.uint32]]:
        """Waits for the first batch whose result has not been received.

        Returns:
            What came of each sample, the features in the data type that was asked for, and the sum
            of each sample's.

        Raises:
            RunError: The engine failed, or the process has ended.
        """
        outcomes, shape, sums, number, fresh = self._received()
        try:
            data = self._pieces.filled(number, fresh=fresh)
        except (OSError, ValueError) as error:
            raise self._ended() from error
        features = data[: self._type.itemsize * math.prod(shape)].view(self._type).reshape(shape)
        return outcomes, features, np.frombuffer(sums, np.uint32)

    def stop(self) -> None:
        """Ends the process, whatever it does; what other threads send and receive fails."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()

    def close(self) -> None:
        """Ends the process and closes the connection, which no thread uses any more."""
        self.stop()
        self._process.wait()
        self._connection.close()
        self._socket.close()
        self._pieces.close()

    def _sent(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._ended() from error

    def _received(self) -> Any:
        try:
            message = self._connection.recv()
        except (OSError, EOFError) as error:
            raise self._ended() from error
        if isinstance(message, _Failed):
            failure = message.error
            raise type(failure)(f"{self._name}: {failure.message}", hint=failure.hint)
        return message

    def _ended(self) -> EndedError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        return EndedError(
            f"the process of {self._name} ended (exit status {self._process.returncode})",
            hint="its output is above; finished images stay in the cache: run the same command "
            "again, without that GPU in --devices if it is at fault",
        )


_InFile = tuple[str, "str | None", str, int, "int | None", "tuple[int, ...] | None"]
"""A sample in a file: name and label, and the arguments of its :class:`FileRead`."""


def _portable(sample: Sample) -> Sample | _InFile:
    """Returns a sample that another process can read: with its image, unless that is in a file."""
    read = sample.read
    if isinstance(read, FileRead):
        return sample.name, sample.label, read.file, read.start, read.size, read.unchanged
    try:
        loaded = Loaded(image=persistently(read, sample.name))
    except (DatasetError, MachineError):
        raise  # such as a label that is no class: not the image's fault
    except Exception as error:  # a data set's own code may raise anything
        loaded = Loaded(error=_plain(error))
    return Sample(name=sample.name, label=sample.label, read=loaded)


def _plain(error: Exception) -> ZooError:
    """Returns an error that can be pickled."""
    return error if isinstance(error, ZooError) else RunError(reason_of(error))


def serve(ours: socket.socket) -> None:
    """Runs the parent's samples until it closes the connection."""
    connection = Connection(os.dup(ours.fileno()))
    task: Task = connection.recv()
    turns.share(task.turns)
    try:
        pieces = FilledPieces(ours)
        with _extractor(task) as extractor:
            room = _Room(pieces, task, extractor.feature_dim)
            with _runs(extractor, task, room) as runs:
                try:
                    connection.send(runs.decoders)
                    for samples in _each_run(connection, pieces):
                        for result in runs.results(samples):
                            _answer(connection, result, room.piece)
                            pieces.hand_over(room.piece)
                except Exception as error:
                    # Before the threads are ended: one of them waits for the parent's samples.
                    connection.send(_Failed(error=_told(error)))
                    raise
    except Exception as error:
        with suppress(OSError):
            connection.send(_Failed(error=_told(error)))
        raise SystemExit(1) from error


class _Room:
    """Shared memory for the features of a batch, in the data type of a cache.

    Args:
        pieces: The memory.
        task: What the process does.
        width: Features of a row.

    Attributes:
        piece: What the last batch is in.
    """

    piece: Piece

    def __init__(self, pieces: FilledPieces, task: Task, width: int) -> None:
        self._pieces, self._width = pieces, width
        self._views = task.augmentation.views
        self._type = np.dtype(STORED[task.storage])

    def __call__(self, samples: int) -> npt.NDArray[Any]:
        """See :data:`zoo.caft.runs.Room`."""
        self.piece = self._pieces.take()
        rows = samples * self._views
        memory = self.piece.room(self._type.itemsize * rows * self._width)
        return np.frombuffer(memory, self._type).reshape(rows, self._width)


def _answer(connection: Connection, result: Result, piece: Piece) -> None:
    """Tells the parent what came of a batch; its features follow."""
    told = [_told_of(each) for each in result.outcomes]
    sums = sums_of(result.features, len(told)).tobytes()
    connection.send((told, result.features.shape, sums, piece.number, piece.fresh))


def _told(error: Exception) -> ZooError:
    if isinstance(error, ZooError):
        return error
    return RunError(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def _each_run(connection: Connection, pieces: FilledPieces) -> Iterator[Iterator[Sample]]:
    """Yields the samples of each run, until the parent is gone."""
    with suppress(EOFError, OSError):
        while True:
            first = connection.recv()
            if first is not None:
                yield _samples(first, connection, pieces)


def _samples(first: Any, connection: Connection, pieces: FilledPieces) -> Iterator[Sample]:
    message = first
    with suppress(EOFError, OSError):  # the parent is gone, or has seen the error
        while message is not None:
            free, samples = message
            pieces.free(free)
            yield from map(_sample, samples)
            message = connection.recv()


def _sample(portable: Sample | _InFile) -> Sample:
    if isinstance(portable, Sample):
        return portable
    name, label, file, start, size, unchanged = portable
    return Sample(name=name, label=label, read=FileRead(file, start, size, unchanged))


def _extractor(task: Task) -> Extractor:
    record = BuildRecord.model_validate_json(task.record)
    options = {} if task.threads is None else {"threads": task.threads}
    session = open_session(task.engine, record.inputs, record.engine.size, **options)
    return Extractor(session, record, file=task.engine)


@contextmanager
def _runs(extractor: Extractor, task: Task, room: Room) -> Iterator[FeedRuns]:
    if task.decode == "gpu":
        check_gpu_decodes(extractor, task.samples * task.augmentation.views)
    with open_feed(
        extractor,
        task.augmentation,
        samples=task.samples,
        workers=task.workers,
        decode=task.decode,
        exif=task.exif,
    ) as feed:
        yield FeedRuns(feed, room=room)


if __name__ == "__main__":
    # The module by its own name: what it pickles must be found in the parent.
    from zoo.caft import engine_process

    accept_large_photos()
    collect_seldom()
    with socket.socket(fileno=int(sys.argv[1])) as connected:
        engine_process.serve(connected)
