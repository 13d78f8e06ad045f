"""The names that users import."""

from __future__ import annotations

import importlib

import pytest

import zoo
import zoo.util.errors


def test_the_base_of_all_errors_is_public() -> None:
    assert zoo.ZooError is zoo.util.errors.ZooError


def test_the_old_module_of_errors_still_works() -> None:
    with pytest.warns(DeprecationWarning, match=r"zoo\.util\.errors\.TrustError"):
        moved = importlib.import_module("zoo.errors").TrustError
    assert moved is zoo.util.errors.TrustError
    with pytest.raises(AttributeError):
        _ = importlib.import_module("zoo.errors").NoSuchError
