"""Files of jobs that are no jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.worker.execute import main
from zoo.util.errors import JobError


@pytest.mark.parametrize(
    ("data", "said"), [("é".encode("latin-1"), "byte 0 is not UTF-8"), (None, "can't be read")]
)
def test_a_job_that_is_no_text_is_a_sentence(
    data: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.json"
    if data is not None:
        job.write_bytes(data)
    assert main([str(job), str(tmp_path / "output")]) == JobError.exit_code
    error = capsys.readouterr().err
    assert error.startswith(f"error: {job}: ")
    assert said in error
    assert not list((tmp_path / "output").iterdir())
