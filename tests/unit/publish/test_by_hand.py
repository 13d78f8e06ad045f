"""What a person decides about an engine: withdrawn or reinstated for every model, or for none."""

from __future__ import annotations

import pytest
from support.commands import ZooFarm
from support.goldens import assert_golden
from support.signed_repository import LABEL, Signed

from zoo.util.errors import UsageError


@pytest.mark.parametrize("command", ["withdraw", "reinstate"])
def test_a_misspelt_model_is_named(
    command: str, signed: Signed, zoo_farm: ZooFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.release("resnet50")
    place = ["--store", signed.store.url, "--keys", str(signed.folder / "keys")]
    status = zoo_farm(command, "resnet5", LABEL, *place, "--reason", "r")
    assert status == UsageError.exit_code
    assert_golden("publish/unknown-model", capsys.readouterr().err)
