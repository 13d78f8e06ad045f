"""``python -m builders.cli``: the same as ``zoo-farm``."""

import sys

from builders.cli.main import main

sys.exit(main())
