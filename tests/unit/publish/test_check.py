"""``zoo-farm check``: what is damaged, and how it is repaired."""

from __future__ import annotations

import pytest
from support.commands import ZooFarm
from support.goldens import assert_golden
from support.signed_repository import Signed

from zoo.util.errors import RepositoryError


def test_a_damaged_blob_is_counted_and_repaired(
    signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.blob_path(signed.release()).write_bytes(b"ENGINE")
    command = ["check", "--store", str(signed.folder / "store")]
    assert zoo_farm(*command) == RepositoryError.exit_code
    assert_golden("publish/check-damaged", capsys.readouterr().err)
    assert zoo_farm(*command, "--repair") == 0
    assert zoo_farm(*command) == 0
