"""Studies in another Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.studies.modelopt import ModelOpt
from zoo.util.errors import UsageError


def test_a_python_without_modelopt_is_named(tmp_path: Path) -> None:
    for python in (Path(sys.executable), tmp_path / "none"):
        with pytest.raises(UsageError, match=f"--modelopt-python {python}: .") as raised:
            ModelOpt(python)
        assert "modelopt.py" in str(raised.value)
