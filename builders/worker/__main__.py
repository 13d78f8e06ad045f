"""``python -m builders.worker JOB OUTPUT``: executes one job, as executors do."""

import sys

from builders.worker.execute import main

sys.exit(main(sys.argv[1:]))
