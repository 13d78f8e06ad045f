"""``python -m zoo.cli``: the same as ``zoo``."""

import sys

from zoo.cli.main import main

sys.exit(main())
