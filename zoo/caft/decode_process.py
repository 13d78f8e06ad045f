"""A process that decodes for one thread of the decoder: the bytes of a file in, pixels out.

Threads alone stop scaling at about a thousand photos a second, because each photo holds the GIL for
a while. Requests and answers are plain bytes through pipes, nothing is pickled; pixels come back
through shared memory. ``python -m zoo.caft.decode_process FD SETTINGS`` is the process's side.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.caft.augment import Augmentation
from zoo.caft.memory import give_back
from zoo.caft.room import LARGE, Room
from zoo.inference.crop import resized_input
from zoo.inference.formats import accept_large_photos
from zoo.inference.preprocess import Exif, decoded_size, fit, open_photo
from zoo.schema.manifest import Preprocess
from zoo.util.causes import plain
from zoo.util.digest import sha256_bytes
from zoo.util.errors import RunError, ZooError
from zoo.util.faults import CrashError, MachineError, fault_of
from zoo.util.names import escaped

Pixels = npt.NDArray[np.uint8]

MOST_THREADS = 4
"""Up to this many workers decode in threads; if there are more, each gets a process."""

_LENGTH = struct.Struct("<Q")
_READY = b"ready\n"
_GO = b"\n"
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""Signals that an image may cause; others come from somebody, or from a system short of memory."""


def views_of(
    photo: Image.Image, digest: str, preprocess: Preprocess, augmentation: Augmentation
) -> Iterator[Pixels]:
    """Yields the pixels of each view of a photo, ``(H, W, 3)`` at the engine's input size."""
    for number in range(augmentation.views):
        yield fit(augmentation.view(photo, number, digest), preprocess)


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding photos.

    Attributes:
        exif: Whether they are turned as their EXIF orientation says.
        fast: Whether JPEG files much larger than the input are decoded at a fraction of their size.
    """

    exif: Exif = "ignore"
    fast: bool = False

    def least_side(self, preprocess: Preprocess, augmentation: Augmentation) -> int | None:
        """Returns the shorter side, in pixels, down to which a photo may be decoded.

        It is twice that of the resized photo, so that the resize still averages pixels; and twice
        that again if there are random views, whose crops are half as wide as the photo at least.
        """
        if not self.fast:
            return None
        resized = max(resized_input(preprocess))
        return 2 * resized * (2 if augmentation.count else 1)


EXACT = Decoding()
"""Photos as they are stored."""


def reason_of(error: Exception) -> str:
    """Returns the reason, in one line, why an image could not be decoded; never an empty one."""
    said = error.message if isinstance(error, ZooError) else _text_of(error)
    if isinstance(error, OSError) and error.strerror:
        said = str(error.strerror)
    if isinstance(error, (ZooError, OSError)) and said.strip():
        return escaped(said)
    return escaped(f"{type(error).__name__}: {said.strip() or 'it says no more'}")


def _text_of(error: Exception) -> str:
    """Returns what an error says, nothing if its class can't tell."""
    try:
        return plain(str(error))
    except Exception:  # somebody's own class
        return ""


class NoProcessError(RunError):
    """A decoding process does not start."""


class DecodeProcess:
    """Decodes in another process; used by one thread at a time.

    Args:
        preprocess: The engine's preprocessing.
        augmentation: The views of each image.
        decoding: How photos are decoded.

    Raises:
        NoProcessError: The process does not start.
    """

    def __init__(
        self, preprocess: Preprocess, augmentation: Augmentation, decoding: Decoding = EXACT
    ) -> None:
        self._settings = json.dumps(
            {
                "preprocess": preprocess.model_dump(
                    mode="json", include=set(Preprocess.model_fields)
                ),
                "augmentation": augmentation.model_dump(mode="json"),
                "exif": decoding.exif,
                "least": decoding.least_side(preprocess, augmentation),
            }
        )
        self._fd = os.memfd_create("pixels")
        os.ftruncate(self._fd, augmentation.views * preprocess.height * preprocess.width * 3)
        self.pixels = _mapped(self._fd, preprocess)
        self._process: subprocess.Popen[bytes] | None = self._start()

    def decode(self, data: bytes, room: Room) -> str:
        """Writes each view of a photo to :attr:`pixels`, ``(views, H, W, 3)``.

        Args:
            data: The photo's file.
            room: Memory for the photo, if it is large.

        Returns:
            The SHA-256 of ``data``.

        Raises:
            RunError: The photo can't be decoded.
            MachineError: The machine can't decode it now, or the process was killed.
            CrashError: The process crashed.
            NoProcessError: The replacement of a crashed process does not start.
        """
        result = self._answer(_LENGTH.pack(len(data)) + data)
        if "needs" in result:
            with room.taken(int(result["needs"])):
                result = self._answer(_GO)
        if "fault" in result:
            raise MachineError(result["fault"])
        if "error" in result:
            raise RunError(result["error"])
        return result["sha256"]

    def _answer(self, request: bytes) -> dict[str, str]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        if not answer.endswith(b"\n"):
            raise self._crashed(process)  # the next photo starts a new process
        result: dict[str, str] = json.loads(answer)
        return result

    def _crashed(self, process: subprocess.Popen[bytes]) -> RunError:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)  # it has closed its pipe, so it is about to end
        status = process.returncode
        self._stop()
        if status is not None and -status in _CRASHES:
            return CrashError("the decoding process crashed on this image")
        return MachineError("the decoding process was killed: memory may have run out")

    def close(self) -> None:
        """Ends the process and frees the shared memory; the object is unusable afterwards."""
        self._stop()
        os.close(self._fd)

    def _start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo.caft.decode_process", str(self._fd), self._settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._fd,),
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C goes to the parent only
        )
        assert process.stdout is not None
        if process.stdout.readline() != _READY:
            process.kill()
            process.communicate()
            raise NoProcessError(
                "a decoding process failed to start; its output is above",
                hint=f"with --workers {MOST_THREADS} or fewer, images are decoded in threads",
            )
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def serve(requests: BinaryIO, answers: BinaryIO, fd: int, settings: str) -> None:
    """Answers decoding requests until the pipe is closed.

    Args:
        requests: Files, each after its length.
        answers: A line of JSON for each.
        fd: The shared memory, for the pixels.
        settings: How to decode, as JSON.
    """
    values = json.loads(settings)
    preprocess = Preprocess.model_validate(values["preprocess"])
    pixels = _mapped(fd, preprocess)
    augmentation = Augmentation.model_validate(values["augmentation"])
    answers.write(_READY)
    answers.flush()

    def answer(result: dict[str, str]) -> None:
        answers.write(json.dumps(result).encode() + b"\n")
        answers.flush()

    def write_views(data: bytes) -> str:
        digest = sha256_bytes(data)
        photo = open_photo(io.BytesIO(data), values["exif"], values["least"])
        views = views_of(photo, digest, preprocess, augmentation)
        for place, view in zip(pixels, views, strict=True):
            place[:] = view
        return digest

    while header := requests.read(_LENGTH.size):
        data = requests.read(*_LENGTH.unpack(header))
        try:
            needed = decoded_size(data, values["least"])
            if needed >= LARGE:
                answer({"needs": str(needed)})
                requests.read(len(_GO))
            result = {"sha256": write_views(data)}
            if needed >= LARGE:
                give_back()
        except Exception as error:  # a damaged file can make Pillow raise anything
            fault = fault_of(error)
            result = {"error": reason_of(error)} if fault is None else {"fault": fault}
        answer(result)


def main(arguments: list[str]) -> int:
    """Maps the shared memory and answers requests on stdin."""
    accept_large_photos()
    serve(sys.stdin.buffer, sys.stdout.buffer, int(arguments[0]), arguments[1])
    return 0


def _mapped(fd: int, preprocess: Preprocess) -> Pixels:
    pixels = np.frombuffer(mmap.mmap(fd, 0), np.uint8)
    return pixels.reshape(-1, preprocess.height, preprocess.width, 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
