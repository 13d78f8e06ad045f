"""The preview server of the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.cli.preview import server
from zoo.util.errors import UsageError


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with server(tmp_path, 0) as running:
        taken = running.server_address[1]
        with pytest.raises(UsageError, match=f"port {taken}: "):
            server(tmp_path, taken)
