#!/usr/bin/env bash
# safetensors 0.8.0 saves a transposed or Fortran-ordered numpy array in the wrong order, without a word.
#
# It copies the array's memory as it lies and writes the shape beside it. 0.7.0 put the elements in order first, and
# safetensors.torch refuses such a tensor. Weights that were transposed on their way (a Linear from another framework,
# features.T, the result of np.linalg.qr or of a column-wise reader) load with the right name, type and shape and with
# other values. np.ascontiguousarray before the save cures it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/save.py" <<'PY'
import numpy as np
import safetensors
from safetensors.numpy import load, save

rows = np.arange(6, dtype=np.float32).reshape(2, 3)
print("safetensors", safetensors.__version__)
for name, array in [
    ("as made", rows),
    ("transposed", rows.T),
    ("Fortran order", np.asfortranarray(rows)),
    ("transposed, ascontiguousarray", np.ascontiguousarray(rows.T)),
]:
    back = load(save({"weight": array}))["weight"]
    assert back.shape == array.shape and back.dtype == array.dtype
    print(f"{name}: {'same' if (back == array).all() else f'{array.tolist()} became {back.tolist()}'}")
PY
for version in 0.7.0 0.8.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q --disable-pip-version-check "safetensors==$version" numpy==2.4.6 2>/dev/null
  "$folder/$version/bin/python" "$folder/save.py"
done | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
safetensors 0.7.0
as made: same
transposed: same
Fortran order: same
transposed, ascontiguousarray: same
safetensors 0.8.0
as made: same
transposed: [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] became [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
Fortran order: [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] became [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
transposed, ascontiguousarray: same
EXPECTED
