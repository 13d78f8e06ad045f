"""``python -m builders.cli``: the same as ``zoo-farm``."""

import sys

from builders.cli.entry import main

sys.exit(main())
