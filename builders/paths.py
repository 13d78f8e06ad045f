"""Where the checkout is."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: it holds ``manifests/``, ``docker/`` and the two packages."""
