"""Where a worker reads a job's inputs and writes its outputs."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from builders.jobs.tactics import lock_of, records_tactics
from zoo.repository.repository import Repository
from zoo.schema.keys import BuildInputs
from zoo.schema.measurements import Cost
from zoo.schema.records import Blob
from zoo.stores import open_store
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError


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
        """Returns a blob as a file: in place if the store is local, else downloaded.

        Its hash is checked before each use either way: a record names the hash, and what is made of
        the file is published under it.

        Raises:
            RepositoryError: It is missing or damaged.
        """
        folder = self.output / "inputs"
        if (path := folder / blob.sha256).is_file() and sha256_file(path) == blob.sha256:
            return path  # downloaded earlier in this job
        if self._repository.blobs.path(blob) is None:
            folder.mkdir(exist_ok=True)
        return self._repository.blobs.whole(blob, folder)

    def timing_cache(self, device: str | None, inputs: BuildInputs) -> Path | None:
        """Returns the timing cache of a build as a file.

        Args:
            device: Name of the GPU.
            inputs: What is built.

        Returns:
            The locked tactics; else the timing cache of the GPU and the toolchain. None if there is
            none or it is damaged: it only saves time.

        Raises:
            RepositoryError: The locked tactics are missing or damaged.
        """
        if (lock := lock_of(inputs)) is not None:
            return self._lock(lock)
        if device is None or records_tactics(inputs):
            return None
        record = self._repository.timing_cache(device, inputs.toolchain)
        if record is None:
            return None
        try:
            return self.blob(record.cache)
        except RepositoryError as error:
            print(f"built without the timing cache: {error.message}")
            return None

    def _lock(self, sha256: str) -> Path:
        blob = self._repository.blobs.find(sha256)
        if blob is None:
            raise RepositoryError(
                f"the locked tactics {sha256} are not stored in this repository",
                hint="BUILDER=tactics=locked finds those of the published engine",
            )
        return self.blob(blob)


def cost_since(started: float) -> Cost:
    """Returns seconds since ``started`` and this process's peak memory so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(seconds=round(time.perf_counter() - started, 2), peak_memory=peak)
