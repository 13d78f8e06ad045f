"""The preview server of the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import ZooFarm

from builders.cli.preview import server
from zoo.util.errors import UsageError


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with server(tmp_path, 0) as running:
        taken = running.server_address[1]
        with pytest.raises(UsageError, match=f"port {taken}: "):
            server(tmp_path, taken)


@pytest.mark.parametrize("port", ["abc", "-1", "65536", "9" * 30, "80.5", "٣"])
def test_a_port_that_is_none_is_refused_before_anything_is_written(
    port: str, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo_farm("catalog", f"--serve={port}") == 2
    assert f"PORT={port}" in capsys.readouterr().err
