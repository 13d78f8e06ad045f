"""Random histories of a repository: what a plan says of each engine is what the run then does."""

from __future__ import annotations

HISTORIES, PARTS = 2000, 4
"""How many are generated, and by how many tests, which two processes share."""
