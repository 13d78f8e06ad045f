"""Measures first pulls of one large made-up engine, whole and as chunks only.

Prints the table "A large file" in docs/results/chunks.md. Each pull runs in its own process, so
that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from support.chunked_engines import in_chunks
from support.s3_server import S3Server
from support.signed_repository import Signed

from benchmarks.chunks import MIB, upload
from zoo.client.client import Client
from zoo.client.trust import SignedIndex
from zoo.repository.repository import Repository
from zoo.schema.chunks import Chunking
from zoo.stores import open_store


def main() -> None:
    """Runs the measurement and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_pull", description=__doc__)
    parser.add_argument("--size", type=int, default=354, help="MiB of the engine")
    parser.add_argument("--rounds", type=int, default=3, help="number of pulls of each kind")
    parser.add_argument("--pull", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size < 1 or options.rounds < 1:
        parser.error("--size and --rounds must be 1 or more")
    if options.pull:
        url, root, home = options.pull
        print(json.dumps(pulled(url, Path(root), Path(home))))
        return
    with tempfile.TemporaryDirectory() as name, S3Server(Path(name) / "server") as server:
        os.environ.update(server.environment)
        numbers = np.random.default_rng(0).standard_normal(options.size * MIB // 4)
        content = (0.05 * numbers).astype("f4").tobytes()
        kinds = {}
        for chunking in (Chunking.OFF, Chunking.ONLY):
            signed = in_chunks(Signed(Path(name) / chunking), chunking)
            signed.release("m", content)
            upload(signed.store, open_store(url := server.new_url()))
            kinds[chunking] = (server.http_url(url), str(signed.ring.root_file))
        pulls: dict[Chunking, list[list[float]]] = {chunking: [] for chunking in kinds}
        for _ in range(options.rounds):
            for chunking, arguments in kinds.items():
                with tempfile.TemporaryDirectory() as home:
                    command = [sys.executable, "-m", "benchmarks.large_pull", "--pull"]
                    done = subprocess.run(
                        [*command, *arguments, home], check=True, capture_output=True, text=True
                    )
                pulls[chunking].append(json.loads(done.stdout))
    print("| chunks | processor | time | peak memory | bytes |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for chunking, rows in pulls.items():
        processor, seconds, memory, fetched = zip(*rows, strict=True)
        print(
            f"| {chunking} | {min(processor):.2f} to {max(processor):.2f} s | {min(seconds):.2f} to"
            f" {max(seconds):.2f} s | {min(memory):.0f} to {max(memory):.0f} MiB |"
            f" {fetched[0] / len(content):.3f} |"
        )


def pulled(url: str, root: Path, home: Path) -> list[float]:
    """Pulls the engine; returns seconds of processors, seconds, MiB of memory, and bytes."""
    store = open_store(url)
    signed = SignedIndex(store, home / "verified", root.read_bytes())
    client = Client(Repository(store, signed), home / "cache", signed)
    (entry,) = client.model("m").current
    begun, used = time.perf_counter(), time.process_time()
    transfer = client.pull("m", entry).transfer
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    assert transfer is not None
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return [processor, seconds, peak / 1024, transfer.fetched]


if __name__ == "__main__":
    main()
