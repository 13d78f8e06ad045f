"""Headers of arrays that a worker returned: whatever NumPy raises is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.jobs.output_formats import check_formats
from zoo.util.errors import JobError

HEADERS = {
    "a bracket that is not closed": b"{'descr': (\n",
    "a string that is not closed": b"'''",
    "a line that goes on": b"{'descr': '<f4', \\\n",
    "a key that is no string": b"{1: 2, 'descr': '<f4'}\n",
    "a formula of thousands of signs": b"-" * 9000 + b"1",
    "a negative shape": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}\n",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_damaged_header_is_a_sentence(tmp_path: Path, header: str) -> None:
    content = HEADERS[header]
    size = len(content).to_bytes(2, "little")
    (tmp_path / "features.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + content + bytes(64))
    with pytest.raises(JobError, match=r"features\.npy .*can't be read"):
        check_formats({"features.npy": "features"}, tmp_path)
