"""Which conditions of writes a server keeps: the rows of the table in docs/reference/stores.md."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zoo.stores.s3.store import S3Store
from zoo.stores.s3.upload import Upload
from zoo.stores.transfer import PART

_RACERS = 8
_WRONG_TAG = '"00000000000000000000000000000000"'


def features(store: S3Store, folder: Path, rounds: int) -> dict[str, int]:
    """Returns in how many rounds a server kept each condition.

    Args:
        store: Writes with the conditions.
        folder: For files of two parts, one for each racing writer.
        rounds: Number of tries of each.
    """
    files = [folder / f"{number}" for number in range(_RACERS)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * (PART + 1))
    bucket, tries = store._bucket, range(rounds)
    store.put("it", b"first")

    def creates(number: int) -> Callable[[int], bool]:
        return lambda writer: store.put(f"p{number}", b"%d" % writer, if_absent=True)

    def uploads(number: int) -> Callable[[int], bool]:
        return lambda writer: store.put_file(f"m{number}", files[writer])

    return {
        "create": sum(not store.put("it", b"second", if_absent=True) for _ in tries),
        "create, racing": sum(_one_wins(creates(number)) for number in tries),
        "replace": sum(bucket.write_tagged("it", b"other", _WRONG_TAG) is None for _ in tries),
        "replace, own tag": sum(_replaces(store, f"r{number}") for number in tries),
        "complete": sum(not Upload(bucket.ask, bucket.at("it")).overwrites() for _ in tries),
        "complete, racing": sum(_one_wins(uploads(number)) for number in tries),
    }


def _replaces(store: S3Store, key: str) -> bool:
    tag = store._bucket.write_tagged(key, b"first", None)
    return store._bucket.write_tagged(key, b"second", tag) is not None


def _one_wins(write: Callable[[int], bool]) -> bool:
    start = threading.Barrier(_RACERS)

    def run(number: int) -> bool:
        start.wait()
        return write(number)

    with ThreadPoolExecutor(_RACERS) as pool:
        return sum(pool.map(run, range(_RACERS))) == 1
