#!/usr/bin/env bash
# pyarrow's safe cast to float16 gives infinity for 70000 and 2048 for the integer 2049, and no error.
#
# safe=True is the default and checks for overflow: an int64 that does not fit into int8 or float32 raises, and so does
# a float that does not fit into int32. To float16 nothing is checked, from integers or from floats, so a column of
# features that is halved to save space loses its large values to infinity. Compare with the original after the cast, or
# look for infinities.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/cast.py" <<'PY'
import pyarrow as pa

print("pyarrow", pa.__version__)
for source, value, target in [
    (pa.int64(), 300, pa.int8()),
    (pa.int64(), 16777217, pa.float32()),
    (pa.float32(), 3e9, pa.int32()),
    (pa.float32(), 70000, pa.float16()),
    (pa.int64(), 70000, pa.float16()),
    (pa.int64(), 2049, pa.float16()),
]:
    try:
        result = pa.array([value], source).cast(target, safe=True)[0].as_py()
    except pa.ArrowInvalid:
        result = "error"
    print(f"{source} {value:.0f} to {target}: {result}")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1 2>/dev/null
"$folder/venv/bin/python" "$folder/cast.py" | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
pyarrow 26.0.1
int64 300 to int8: error
int64 16777217 to float: error
float 3000000000 to int32: error
float 70000 to halffloat: inf
int64 70000 to halffloat: inf
int64 2049 to halffloat: 2048.0
EXPECTED
