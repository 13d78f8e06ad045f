"""Where a worker reads a job's inputs and writes its outputs."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from zoo.repository.repository import Repository
from zoo.schema.measurements import Cost
from zoo.schema.records import Blob
from zoo.schema.targets import Toolchain
from zoo.stores import open_store


class Workspace:
    """A store's blobs as local files, and the folder for outputs.

    Args:
        store: The store's URL.
        output: Folder for outputs.
    """

    def __init__(self, store: str, output: Path) -> None:
        self._repository = Repository(open_store(store))
        self.output = output

    def blob(self, blob: Blob) -> Path:
        """Returns a blob as a file: in place if the store is local, else downloaded and checked."""
        path = self._repository.blobs.path(blob)
        if path is None:
            path = self.output / "inputs" / blob.sha256
            path.parent.mkdir(exist_ok=True)
            self._repository.blobs.fetch(blob, path)
        return path

    def timing_cache(self, device: str, toolchain: Toolchain) -> Path | None:
        """Returns the timing cache of a GPU and a toolchain as a file, None if there is none."""
        record = self._repository.timing_cache(device, toolchain)
        return self.blob(record.cache) if record else None


def cost_since(started: float) -> Cost:
    """Returns seconds since ``started`` and this process's peak memory so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(seconds=round(time.perf_counter() - started, 2), peak_memory=peak)
