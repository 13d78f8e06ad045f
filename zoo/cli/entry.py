"""Entry point of ``zoo``; imports nothing heavy before Ctrl-C is provided for."""

from __future__ import annotations

from zoo.util.interrupts import run_main


def main() -> int:
    """Entry point of ``zoo``."""
    return run_main("zoo.cli.main")
