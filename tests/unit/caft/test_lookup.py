"""Rows are found by content and lines of the log by key."""

from __future__ import annotations

import hashlib

import numpy as np

from zoo.caft.lookup import Keys, Rows


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hashes(*digests: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    data = b"".join(map(bytes.fromhex, digests))
    return np.frombuffer(data, np.uint8).reshape(-1, 32)


def test_the_first_row_of_a_content_is_found() -> None:
    rows = Rows(hashes(digest("a"), digest("b"), digest("a")))
    assert [rows.find(digest(text)) for text in "abc"] == [0, 1, None]
    assert rows.distinct == 2
    assert rows.digest(1) == digest("b")


def test_a_shared_prefix_does_not_deceive() -> None:
    first, second = ("ab" * 8 + end * 24 for end in ("01", "02"))
    rows = Rows(hashes(first, second))
    assert (rows.find(first), rows.find(second)) == (0, 1)
    assert rows.find("ab" * 8 + "03" * 24) is None


def never(line: int) -> bool:
    return False


def test_the_last_line_of_a_key_is_found_and_counted_once() -> None:
    keys = Keys([7, 2**64 - 1, 7, 3])
    assert keys.distinct == 3
    assert keys.found == 0
    assert [keys.find(f"{key:x}", never) for key in (7, 7, 2**64 - 1, 5)] == [2, 2, 1, None]
    assert keys.found == 2


def test_lines_that_share_a_key_are_found_in_order() -> None:
    keys = Keys([7, 3, 7, 7])
    assert [keys.find("7", lambda line: True) for _ in range(4)] == [0, 2, 3, 3]
    keys = Keys([7, 3, 7, 7])
    assert [keys.find("7", lambda line, meant=meant: line == meant) for meant in (2, 0, 3, 9)] == [
        2, 0, 3, 3,
    ]  # fmt: skip
    assert keys.found == 1


def test_a_name_that_a_data_set_has_very_often_is_found_fast() -> None:
    tried = 0

    def fits(line: int) -> bool:
        nonlocal tried
        tried += 1
        return line % 2 == 1

    keys = Keys([7] * 1000)
    for _ in range(1000):
        keys.find("7", fits)
    assert tried <= 16 * 1000


def test_an_empty_cache_has_nothing() -> None:
    assert Keys([]).find("0", never) is None
    assert Keys([]).distinct == Keys([]).found == 0
    assert Rows(np.empty((0, 32), np.uint8)).find(digest("a")) is None
