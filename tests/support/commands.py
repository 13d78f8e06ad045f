"""Types of the fixtures that run command lines."""

from __future__ import annotations

from collections.abc import Callable

ZooFarm = Callable[..., int]
"""``zoo-farm`` with some arguments: returns its exit status."""
