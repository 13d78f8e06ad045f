#!/usr/bin/env bash
# quantize_static of ONNX Runtime runs the whole calibration and then fails if the last batch is shorter.
#
# Entropy, Percentile and Distribution keep what each batch gave and stack it at the end, which needs batches of one
# size; MinMax reduces each batch and takes any sizes. A loader that does not drop the rest (100 photos, 8 at a time)
# works with MinMax, and with the others it ends hours later in numpy's "inhomogeneous shape", which names no batch.
# Photos one by one, or a number of them that the batch size divides, cure it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/calibrate.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static

model, quantized = sys.argv[1:]
weights = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
graph = onnx.parser.parse_graph("g (float[n, 8] x) => (float[n, 4] y) { y = MatMul(x, w) }")
graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), model)


class Batches(CalibrationDataReader):
    def __init__(self, rows, step):
        data = np.random.default_rng(1).normal(size=(rows, 8)).astype(np.float32)
        self.left = [data[start : start + step] for start in range(0, rows, step)]

    def get_next(self):
        return {"x": self.left.pop(0)} if self.left else None


print("onnxruntime", onnxruntime.__version__, file=sys.stderr)
for method in CalibrationMethod:
    for rows in (96, 100):
        batches = Batches(rows, 8)
        try:
            quantize_static(model, quantized, batches, calibrate_method=method)
            result = "quantised"
        except ValueError as error:
            result = "ValueError, inhomogeneous" if "inhomogeneous" in str(error) else str(error)
        print(f"{method.name}, {rows} rows by 8: {result}; batches left: {len(batches.left)}", file=sys.stderr)
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 sympy==1.14.0 2>/dev/null
"$folder/venv/bin/python" -W ignore "$folder/calibrate.py" "$folder"/{model,quantised}.onnx 2>&1 >/dev/null |
  grep -v '^WARNING' | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
onnxruntime 1.32.0
MinMax, 96 rows by 8: quantised; batches left: 0
MinMax, 100 rows by 8: quantised; batches left: 0
Entropy, 96 rows by 8: quantised; batches left: 0
Entropy, 100 rows by 8: ValueError, inhomogeneous; batches left: 0
Percentile, 96 rows by 8: quantised; batches left: 0
Percentile, 100 rows by 8: ValueError, inhomogeneous; batches left: 0
Distribution, 96 rows by 8: quantised; batches left: 0
Distribution, 100 rows by 8: ValueError, inhomogeneous; batches left: 0
EXPECTED
