"""How ONNX Runtime's threads wait for each other."""

from __future__ import annotations

import pytest

from zoo.runtime.onnxruntime import session_options

_SPINNING = "session.intra_op.allow_spinning"


@pytest.mark.parametrize("policy", ["PASSIVE", "passive"])
def test_threads_sleep_where_they_are_told_to(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert session_options().get_session_config_entry(_SPINNING) == "0"


@pytest.mark.parametrize("policy", ["", "ACTIVE"])
def test_threads_wait_as_they_do_by_default_otherwise(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    with pytest.raises(RuntimeError, match="allow_spinning"):  # it has no such entry
        session_options().get_session_config_entry(_SPINNING)
