"""Runs jobs in copies of one process that has imported PyTorch: ``python -m builders.worker.warm``.

Importing PyTorch, timm and the exporter takes longer than exporting a small network. A fork of a
process that has them starts at once, and is as separate from the next job as any other process:
own memory, own session, own log, and an end that reaches nobody else. One such process is copied
for exports, another for the speed of engines: see
:class:`~builders.executors.warm.Copies`.

The farm and this process share a socket. A request is a line with the paths of a job and of its
output folder, and three descriptors: standard output, standard error, and a pipe on which the copy
states its process ID, and this process its exit status once it has ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from builders.executors.warm import Copies
from zoo.util.garbage import collect_seldom

_LINE = 64 * 2**10  # bytes; a request is two paths


@dataclass
class _Server:
    """Copies itself for each request until the farm has gone.

    Attributes:
        farm: The socket to the farm.
        woken: Readable when a copy has ended.
        statuses: Pipe of each running copy, by process ID.
    """

    farm: socket.socket
    woken: socket.socket
    statuses: dict[int, int] = field(default_factory=dict)

    def serve(self) -> list[str] | None:
        """Returns None when the farm has gone; in a copy, the arguments of its job."""
        while True:
            ready, _, _ = select.select([self.farm, self.woken], [], [])
            if self.woken in ready:
                self.woken.recv(_LINE)
                self._reap()
            if self.farm in ready:
                line, descriptors, _, _ = socket.recv_fds(self.farm, _LINE, 3)
                if not line:
                    return None
                if (arguments := self._copy(line, descriptors)) is not None:
                    return arguments

    def _copy(self, line: bytes, descriptors: list[int]) -> list[str] | None:
        output, errors, status = descriptors
        pid = os.fork()
        if pid:
            os.close(output)
            os.close(errors)
            self.statuses[pid] = status
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()  # before its ID is known: it is ended together with what it starts
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.write(status, b"%d\n" % os.getpid())
        self.farm.close()
        self.woken.close()
        for descriptor in (*descriptors, *self.statuses.values()):
            os.close(descriptor)
        arguments: list[str] = json.loads(line)
        return arguments

    def _reap(self) -> None:
        """States the exit status of each copy that has ended."""
        while self.statuses:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            pipe = self.statuses.pop(pid)
            with suppress(BrokenPipeError):  # the farm has given it up
                os.write(pipe, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(pipe)


def load_pytorch() -> None:
    """Imports what a comparison with PyTorch needs; see :func:`load` for what may not be.

    ONNX Runtime is imported by the copies.
    """
    from builders.export import backbone
    from builders.verify import in_turns  # noqa: F401

    backbone.import_timm()


def load() -> None:
    """Imports what an export needs, and exports a network of one layer.

    The exporter imports and prepares much only when it is used. Nothing may be computed here, and
    ONNX Runtime not be imported: a copy would wait forever for their threads, which a fork does
    not copy.
    """
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    from builders.export import branches, cuts, fusion, onnx, timm_facts  # noqa: F401
    from builders.photos import bundled  # noqa: F401
    from builders.weights import card, hub, seeded, state  # noqa: F401

    tqdm.monitor_interval = 0  # or the exporter's progress bars start a thread
    timm_facts.remember()
    _keep_operators()
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 8), torch.nn.Flatten()).eval()
    with tempfile.TemporaryDirectory() as folder:
        onnx.write_onnx(network, 8, Path(folder) / "one.onnx")
    collect_seldom()


def _keep_operators() -> None:
    """Has the exporter make its table of operators here, not once more in each copy."""
    with suppress(ImportError, AttributeError):  # private: where it is otherwise, copies make it
        from torch.onnx._internal.exporter import _registration

        registry: Any = _registration.ONNXRegistry
        registry.from_torchlib = staticmethod(cache(registry.from_torchlib))


def main(descriptor: str, copies: str = Copies.EXPORTS) -> int:
    """Loads, then serves the socket of a descriptor.

    Args:
        descriptor: Its number.
        copies: What the copies do.
    """
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    # CUDA does not work in copies of a process that has looked for GPUs, as PyTorch does by itself.
    # Neither an export nor a comparison of a CPU engine needs one.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from builders.worker import execute, speed

    match Copies(copies):
        case Copies.EXPORTS:
            load()
            run: Callable[[list[str]], int] = execute.main
        case Copies.SPEEDS:
            load_pytorch()
            run = speed.main
        case never:
            assert_never(never)
    server = _Server(socket.socket(fileno=int(descriptor)), woken)
    if (arguments := server.serve()) is None:
        return 0
    waker.close()
    status = 1
    try:
        status = run(arguments)
    except BaseException:  # as the interpreter does, which must not go on from here
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what ends with an interpreter is the original's


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
