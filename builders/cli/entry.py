"""Entry point of ``zoo-farm``; imports nothing heavy before Ctrl-C is provided for."""

from __future__ import annotations

from zoo.util.interrupts import run_main


def main() -> int:
    """Entry point of ``zoo-farm``."""
    return run_main("builders.cli.main")
