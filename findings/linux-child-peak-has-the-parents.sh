#!/usr/bin/env bash
# The peak of memory that Linux reports for a finished child includes what its parent had in use.
#
# wait4 and getrusage(RUSAGE_CHILDREN) give the largest resident size that a process ever had, and a child begins as its
# parent: a farm of 500 MiB that starts a job of 10 MiB records a peak of 500 MiB for it. Executing another program does
# not reset that figure. A small process in between gives the true one, and so does VmHWM in the child's
# /proc/self/status, which begins anew with each program.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/peaks.py" <<'PY'
import os
import re
import subprocess
import sys

LOOK = "print(open('/proc/self/status').read())"
BETWEEN = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
child = [sys.executable, "-S", "-c", LOOK]
held = b"x" * (500 << 20)

direct = subprocess.Popen(child, stdout=subprocess.PIPE, text=True)
status = direct.stdout.read()
_, _, usage = os.wait4(direct.pid, 0)
own = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
between = subprocess.run(
    [sys.executable, "-S", "-c", BETWEEN, *child], capture_output=True, text=True, check=True
)


def words(kib):
    return "above 500 MiB" if kib > 500 << 10 else "below 100 MiB" if kib < 100 << 10 else f"{kib} KiB"


print("wait4, parent of 500 MiB:", words(usage.ru_maxrss))
print("VmHWM in the same child:", words(own))
print("a small process in between:", words(int(between.stdout)))
PY
python3 "$folder/peaks.py" | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
wait4, parent of 500 MiB: above 500 MiB
VmHWM in the same child: below 100 MiB
a small process in between: below 100 MiB
EXPECTED
