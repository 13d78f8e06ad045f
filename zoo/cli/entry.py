"""Entry point of ``zoo``; imports nothing heavy before Ctrl-C is provided for."""

from __future__ import annotations

import os

from zoo.util.interrupts import run_main


def main() -> int:
    """Entry point of ``zoo``."""
    # Threads of OpenMP (torch, scikit-learn) wait for each other in a loop, which takes the core
    # from the one that they wait for where other programs run too. Read when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return run_main("zoo.cli.main")
