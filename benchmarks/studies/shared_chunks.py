"""How much of an engine stands in the ONNX that it was built from, and in which order.

``python -m benchmarks.studies.shared_chunks ENGINE --among ONNX`` cuts both into content-defined
chunks and counts the engine's bytes that are in chunks of the ONNX. ``--weights ONNX`` also looks
for pieces of the weights in the engine, in the orders in which a runtime may keep them: what is
found in short pieces alone is permuted, and chunks cannot share it.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from zoo.cli.main import Parser, run_cli
from zoo.util.errors import UsageError
from zoo.util.files import whole

Array = npt.NDArray[Any]

_WINDOW = 32  # bytes that a cut depends on
_BITS = 13  # cuts are 8 KiB apart on average, before the limits
_LEAST, _MOST = 2 << 10, 64 << 10
_BLOCK = 16 << 20  # bytes hashed at once

_ZSTD_LEVEL = 3


def _channels_last(weights: Array) -> Array | None:
    if weights.ndim != 4 or weights.shape[1] == 1 or weights.shape[2:] == (1, 1):
        return None
    return weights.transpose(0, 2, 3, 1)


def _transposed(weights: Array) -> Array | None:
    rows = weights.reshape(len(weights), -1)
    return None if 1 in rows.shape else rows.T


ORDERS: dict[str, Callable[[Array], Array | None]] = {
    "as in the ONNX": lambda weights: weights,
    "channels last": _channels_last,
    "transposed": _transposed,
}
"""Orders that weights are looked for in; None for a tensor that an order does not change."""

_PIECES = (16, 64, 256, 1024, 8192)  # bytes
_LEAST_WEIGHTS = 4096  # of a tensor that pieces are taken from
_TAKEN = 60  # pieces of each size and order


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Found(_Result):
    """Pieces of the weights that stand in the engine.

    Attributes:
        order: A key of :data:`ORDERS`.
        piece: Bytes of a piece.
        taken: Number of pieces that were looked for.
        share: Fraction of them that was found.
    """

    order: str
    piece: int
    taken: int
    share: float


class Shared(_Result):
    """What an engine shares with other files.

    Attributes:
        engine: File name of the engine.
        size: Bytes.
        chunks: Number of its chunks.
        zstd: Size compressed by zstd, divided by its size; None without the ``zstd`` program.
        among: File name to the fraction of the engine's bytes that are in chunks of the file.
        found: Pieces of the weights that stand in the engine.
    """

    engine: str
    size: int
    chunks: int
    zstd: float | None
    among: dict[str, float]
    found: tuple[Found, ...] = ()


def chunks_of(data: bytes) -> Iterator[bytes]:
    """Cuts data where a hash of the last 32 bytes says, into chunks of about 8 KiB.

    An insertion therefore moves only the cuts around it.
    """
    start, wanted = 0, 0
    for cut in _candidates(data):
        while cut - start > _MOST:
            yield data[start : start + _MOST]
            start += _MOST
        wanted = start + _LEAST
        if cut >= wanted:
            yield data[start:cut]
            start = cut
    while start < len(data):
        yield data[start : start + _MOST]
        start += _MOST


def _candidates(data: bytes) -> Iterator[int]:
    """Returns where the gear hash allows cuts, ascending."""
    gear = np.random.default_rng(0).integers(0, 2**32, 256, dtype=np.uint32)
    whole_data = np.frombuffer(data, np.uint8)
    for begin in range(0, len(data), _BLOCK):
        first = max(0, begin - _WINDOW + 1)
        hashes = gear[whole_data[first : begin + _BLOCK]]
        width = 1
        while width < _WINDOW:
            # From the hashes of the last `width` bytes those of twice as many: a shift and a sum.
            hashes[width:] = hashes[width:] + (hashes[:-width] << np.uint32(width))
            width *= 2
        hits = np.flatnonzero(hashes >> np.uint32(32 - _BITS) == 0) + first + 1
        yield from map(int, hits[(hits > begin) & (hits <= begin + _BLOCK)])


def digests(data: bytes) -> list[tuple[bytes, int]]:
    """Returns the digest and size of each chunk of some data, in order."""
    return [
        (hashlib.blake2b(chunk, digest_size=16).digest(), len(chunk)) for chunk in chunks_of(data)
    ]


def share(engine: Iterable[tuple[bytes, int]], other: Iterable[tuple[bytes, int]]) -> float:
    """Returns the fraction of an engine's bytes that are in chunks of another file."""
    known = {digest for digest, _ in other}
    sizes = [(size, digest in known) for digest, size in engine]
    return sum(size for size, is_known in sizes if is_known) / max(1, sum(s for s, _ in sizes))


def zstd_ratio(path: Path) -> float | None:
    """Returns a file's size after ``zstd`` divided by its size; None without the program."""
    program = shutil.which("zstd")
    if program is None or not path.stat().st_size:
        return None
    done = subprocess.Popen(
        [program, f"-{_ZSTD_LEVEL}", "-q", "-c", str(path)], stdout=subprocess.PIPE
    )
    assert done.stdout is not None
    size = 0
    while part := done.stdout.read(1 << 20):
        size += len(part)
    return size / path.stat().st_size if done.wait() == 0 else None


def pieces_found(engine: bytes, weights: Iterable[Array]) -> tuple[Found, ...]:
    """Looks for pieces of the weights in an engine.

    Args:
        engine: The engine.
        weights: The network's weights; small tensors are left out.
    """
    large = [tensor for tensor in weights if tensor.size >= _LEAST_WEIGHTS]
    found = []
    for order, arrange in ORDERS.items():
        arranged = [
            np.ascontiguousarray(array).tobytes()
            for tensor in large
            if (array := arrange(tensor)) is not None
        ]
        for piece in _PIECES:
            pieces = _taken(arranged, piece)
            if pieces:
                hits = sum(engine.find(one) >= 0 for one in pieces)
                found.append(
                    Found(order=order, piece=piece, taken=len(pieces), share=hits / len(pieces))
                )
    return tuple(found)


def _taken(tensors: list[bytes], piece: int) -> list[bytes]:
    """Returns pieces at random places; larger tensors give more, and constant pieces none."""
    random = np.random.default_rng(piece)
    long = [tensor for tensor in tensors if len(tensor) >= piece]
    if not long:
        return []
    sizes = np.array([len(tensor) for tensor in long], float)
    taken = []
    for index in random.choice(len(long), _TAKEN, p=sizes / sizes.sum()):
        tensor = long[index]
        start = piece * int(random.integers(0, len(tensor) // piece))
        one = tensor[start : start + piece]
        if one != one[:4] * (piece // 4):
            taken.append(one)
    return taken


def weights_of(onnx_file: Path) -> list[Array]:
    """Returns the floating-point weights of an ONNX."""
    import onnx
    from onnx import numpy_helper

    arrays = map(numpy_helper.to_array, onnx.load(onnx_file).graph.initializer)
    return [array for array in arrays if array.dtype.kind == "f"]


def look(engine: Path, among: Iterable[Path], weights: Path | None = None) -> Shared:
    """Returns what an engine shares with other files.

    Args:
        engine: The engine.
        among: The other files.
        weights: The ONNX whose weights are looked for.
    """
    data = engine.read_bytes()
    own = digests(data)
    return Shared(
        engine=engine.name,
        size=len(data),
        chunks=len(own),
        zstd=zstd_ratio(engine),
        among={path.name: share(own, digests(path.read_bytes())) for path in among},
        found=pieces_found(data, weights_of(weights)) if weights else (),
    )


def to_markdown(results: Iterable[Shared]) -> str:
    """Returns a table of engines, and one of the pieces that were found in them."""
    lines = [
        "| engine | MiB | chunks | zstd | share of its bytes that are chunks of |  |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    pieces = [
        "| engine | order of the weights | " + " | ".join(f"{n} B" for n in _PIECES) + " |",
        "| --- | --- |" + " ---: |" * len(_PIECES),
    ]
    for result in results:
        zstd = "" if result.zstd is None else f"{result.zstd:.2f}"
        for name, of_bytes in result.among.items():
            lines.append(
                f"| {result.engine} | {result.size / 2**20:.1f} | {result.chunks} | {zstd} | "
                f"{name} | {of_bytes:.3f} |"
            )
        shares = {(one.order, one.piece): f"{one.share:.2f}" for one in result.found}
        for order in dict.fromkeys(one.order for one in result.found):
            cells = " | ".join(shares.get((order, piece), "") for piece in _PIECES)
            pieces.append(f"| {result.engine} | {order} | {cells} |")
    return "\n".join([*lines, "", *pieces])


def compare(options: argparse.Namespace) -> int:
    """Prints what an engine shares, as Markdown; -o also writes it as JSON."""
    for path in (options.engine, *options.among):
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
    shared = look(options.engine, options.among, options.weights)
    if options.output:
        with whole(options.output) as partial:
            partial.write_text(shared.model_dump_json(indent=1), encoding="utf-8")
    print(to_markdown([shared]))
    return 0


def main() -> int:
    """Entry point of ``python -m benchmarks.studies.shared_chunks``."""
    parser = Parser(prog="python -m benchmarks.studies.shared_chunks", description=__doc__)
    parser.add_argument("engine", type=Path, help="the engine")
    parser.add_argument(
        "--among", type=Path, nargs="*", default=[], help="files that it may share chunks with"
    )
    parser.add_argument("--weights", type=Path, help="the ONNX whose weights are looked for")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    parser.set_defaults(command=compare)
    return run_cli(parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
