"""Keys, on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.signed_repository import Signed

from zoo.util.errors import UsageError


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.release()
    return made


def test_a_key_is_revoked_by_its_id(signed: Signed) -> None:
    def revoke(key: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "builders.cli", "keys", "revoke", key, "--no-passphrase"]
        folders = ["--keys", str(signed.ring.folder), "--store", signed.store.url]
        return subprocess.run([*command, *folders], capture_output=True, text=True, check=False)

    old = signed.ring.entry("publisher").keyid
    assert revoke(old[:16]).returncode == 0
    signed.ring = type(signed.ring)(signed.ring.folder, ask=lambda what: "")
    assert signed.ring.entry("publisher").keyid != old
    signed.release(content=b"newer")
    assert signed.pulled(signed.client()) == b"newer"
    again = revoke(old[:16])
    assert again.returncode == UsageError.exit_code
    assert f"{signed.ring.entry('root').keyid[:16]} (root)" in again.stderr
