"""Benchmarks the S3 store against ``aws s3 cp`` on the same server, alternating in one run.

Prints the table in docs/results/stores.md. The store's times include hashing: a blob is hashed
before its upload and, to compare it with its name, after its download.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.s3_server import BUCKET, S3Server

_OURS = f"""
import resource, sys
from pathlib import Path
from zoo.schema.records import Blob
from zoo.repository.repository import Repository
from zoo.stores import open_store

what, path, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
repository = Repository(open_store("s3://{BUCKET}/ours"))
if what == "put":
    print(repository.blobs.add(path).sha256)
else:
    repository.blobs.fetch(Blob(sha256=sys.argv[4], size=size), path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""

_THEIRS = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
"""


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--aws", required=True, help="path of awscli's command aws")
    parser.add_argument("--mib", type=int, default=1024, help="size of the object in MiB")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, S3Server(Path(folder) / "server") as server:
        os.environ.update(server.environment)
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Runs both alternately and prints medians."""
    blob, copy, there = folder / "blob", folder / "copy", f"s3://{BUCKET}/theirs"
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[int]] = {}

    def run(name: str, code: str, *arguments: str) -> str:
        copy.unlink(missing_ok=True)
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        seconds.setdefault(name, []).append(time.monotonic() - begun)
        memory.setdefault(name, []).append(int(done.stderr.split()[-1]))
        return done.stdout.strip()

    aws: Callable[..., str] = lambda name, *rest: run(name, _THEIRS, options.aws, "s3", "cp", "--quiet", *rest)  # noqa: E731, E501  # fmt: skip
    size = str(options.mib << 20)
    for _ in range(options.rounds):
        with blob.open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(1 << 20))
        aws("put aws", str(blob), there)
        name = run("put ours", _OURS, "put", str(blob), size)
        aws("get aws", there, str(copy))
        run("get ours", _OURS, "get", str(copy), size, name)
    print("| | seconds, median (range) | MiB/s | peak memory, MiB |\n| --- | --- | --- | --- |")
    for name, took in sorted(seconds.items()):
        middle = statistics.median(took)
        print(
            f"| {name} | {middle:.2f} ({min(took):.2f} to {max(took):.2f}) | "
            f"{options.mib / middle:.0f} | {max(memory[name])} |"
        )
    for way in ("put", "get"):
        rate = statistics.median(seconds[f"{way} aws"]) / statistics.median(seconds[f"{way} ours"])
        print(f"\n{way}: {rate:.2f} of the rate of aws s3 cp")


if __name__ == "__main__":
    main()
