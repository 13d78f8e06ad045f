"""Runs ``zoo`` as ``python -m zoo.cli``."""

import sys

from zoo.cli.entry import main

sys.exit(main())
