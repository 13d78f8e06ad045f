"""Runs ``zoo`` as ``python -m zoo.cli``."""

import sys

from zoo.cli.main import main

sys.exit(main())
