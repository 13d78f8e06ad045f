"""What the client imports: nothing that only signing needs, and that only when it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zoo.util.late import imported_later

PACKAGE = "imported_later_for_a_test"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / f"{PACKAGE}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return PACKAGE


def test_a_package_is_imported_when_it_is_used(package: str) -> None:
    with imported_later(package):
        import imported_later_for_a_test as later  # type: ignore[import-not-found]
    assert package not in sys.modules
    assert later.value == 1
    assert sys.modules[package].value == 1
    assert sys.modules[package] is not later
    with imported_later(package):  # it is imported already
        assert sys.modules.pop(package).value == 1


def test_it_may_be_used_at_once(package: str) -> None:
    with imported_later(package):
        from imported_later_for_a_test import value
    assert value == 1
    del sys.modules[package]


def test_a_missing_package_stays_missing() -> None:
    with imported_later("there_is_no_such_package"), pytest.raises(ModuleNotFoundError):
        import there_is_no_such_package  # type: ignore[import-not-found]  # noqa: F401


def test_verifying_imports_no_library_of_a_cloud() -> None:
    code = (
        "import sys, zoo.client.tuf; from securesystemslib.signer import AWSSigner; "
        "print('boto3' in sys.modules, 'boto3' in sys.modules or 'numpy' in sys.modules); "
        "import boto3; from securesystemslib.signer import _aws_signer as aws; "
        "print(aws.AWS_IMPORT_ERROR, aws.boto3.client is boto3.client)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "None", "True"]
