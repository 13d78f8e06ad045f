"""``python -m builders.worker JOB OUTPUT``: executes one job."""

import sys

from builders.worker.execute import main

sys.exit(main(sys.argv[1:]))
