#!/usr/bin/env bash
# Entropy calibration in ONNX Runtime's quantize_static clips nothing: its scales are those of MinMax.
#
# The method should find the threshold that loses the least information and cut outliers off. quantize_static gives it
# a histogram of 128 bins for 128 quantised bins, so the whole range is the only candidate, and no extra_option changes
# the number. One wild activation costs the whole scale, and a comparison of both methods shows no difference, which
# reads as "this network has no outliers". create_calibrator takes num_bins, and with it the method does its work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/calibrate.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator, quantize_static

model, quantized, augmented = sys.argv[1:]
graph = onnx.parser.parse_graph("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }")
graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), model)


class Batches(CalibrationDataReader):
    def __init__(self):
        rows = np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
        rows[2000, 2] = 100  # one of 16,000 values
        self.left = np.split(rows, 40)

    def get_next(self):
        return {"x": self.left.pop(0)} if self.left else None


print("onnxruntime", onnxruntime.__version__, file=sys.stderr)
for method in (CalibrationMethod.MinMax, CalibrationMethod.Entropy):
    quantize_static(model, quantized, Batches(), calibrate_method=method)
    (scale,) = [tensor for tensor in onnx.load(quantized).graph.initializer if tensor.name == "x_scale"]
    range_ = float(onnx.numpy_helper.to_array(scale).ravel()[0]) * 255
    print(f"quantize_static, {method.name}: a range of {range_:.0f}", file=sys.stderr)
for bins in (128, 2048):
    calibrator = create_calibrator(
        model, None, augmented, CalibrationMethod.Entropy, extra_options={"num_bins": bins}
    )
    calibrator.collect_data(Batches())
    low, high = calibrator.compute_data()["x"].range_value
    print(f"create_calibrator, Entropy, {bins} bins: outlier kept: {bool(high > 99)}", file=sys.stderr)
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 sympy==1.14.0 2>/dev/null
"$folder/venv/bin/python" -W ignore "$folder/calibrate.py" "$folder"/{model,quantised,augmented}.onnx 2>&1 >/dev/null |
  grep -v '^WARNING' | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
onnxruntime 1.32.0
quantize_static, MinMax: a range of 104
quantize_static, Entropy: a range of 104
create_calibrator, Entropy, 128 bins: outlier kept: True
create_calibrator, Entropy, 2048 bins: outlier kept: False
EXPECTED
