#!/usr/bin/env bash
# Pillow 13.0.0 resizes some tall pictures column by column first; 12 always began with the rows.
#
# Each pass of the resize rounds to 8 bits and clips, so the order shows in the pixels: the same bicubic
# resize of the same noise differs by up to 20 levels between the two versions. Preprocessing that is compared bit
# for bit (golden inputs, caches of features, a resize on a GPU) must fix the order itself; two calls of
# resize(), first to the new width, then to the new height, give the old order in both versions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/resize.py" <<'PY'
import hashlib
import PIL
from PIL import Image

tall = Image.frombytes("RGB", (40, 90), hashlib.shake_256(b"tall").digest(40 * 90 * 3))
bicubic = Image.Resampling.BICUBIC
direct = tall.resize((36, 81), bicubic).tobytes()
rows_first = tall.resize((36, 90), bicubic).resize((36, 81), bicubic).tobytes()
columns_first = tall.resize((40, 81), bicubic).resize((36, 81), bicubic).tobytes()
order = {rows_first: "rows first", columns_first: "columns first"}[direct]
digest = hashlib.sha256(rows_first).hexdigest()[:12]
most = max(abs(a - b) for a, b in zip(rows_first, columns_first))
print(f"Pillow {PIL.__version__}: {order}; rows first is {digest}; the orders differ by {most}")
PY
for version in 12.0.0 13.0.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q --disable-pip-version-check "pillow==$version" 2>/dev/null
  "$folder/$version/bin/python" "$folder/resize.py"
done | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
Pillow 12.0.0: rows first; rows first is a9996e6887e1; the orders differ by 20
Pillow 13.0.0: columns first; rows first is a9996e6887e1; the orders differ by 20
EXPECTED
