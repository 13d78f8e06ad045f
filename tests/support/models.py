"""Models that many tests use, by their manifest's name."""

from __future__ import annotations

LITE = "efficientnet_lite0"
"""A model whose real weights come from a package index: the smallest of them."""

SMALL = "mobilenetv3_small_100"
"""The smallest model: for dry runs, with seeded weights."""
