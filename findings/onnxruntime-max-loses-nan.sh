#!/usr/bin/env bash
# GlobalMaxPool and ReduceMax of ONNX Runtime on a CPU drop NaN, so that broken features look sound.
#
# PyTorch, NumPy and the reference evaluator of onnx give NaN for the maximum of values with a NaN among them, and so
# does ONNX Runtime for the mean, ReLU and Max of two tensors. The maximum of a feature map with one NaN is finite for
# nearly all places of it. A network with max pooling at its end so turns a local overflow into finite features that
# pass a check of the output, and agrees with PyTorch on all but the failures. Check for NaN before the pooling.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/maximum.py" <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

TEXT = """
<ir_version: 9, opset_import: ["": 18]>
pool (float[1, 3, 16, 16] x) => (y) <int64[2] axes = {2, 3}, float zero = {0}> { y = CALL }
"""
x = np.full((1, 3, 16, 16), 2, np.float32)
x[0, 0, 5, 5] = np.nan
print("onnxruntime", onnxruntime.__version__)
for call in (
    "GlobalMaxPool(x)",
    "ReduceMax(x, axes)",
    "ReduceMin(x, axes)",
    "GlobalAveragePool(x)",
    "Relu(x)",
    "Max(x, zero)",
):
    model = onnx.parser.parse_model(TEXT.replace("CALL", call))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got, expected = session.run(None, {"x": x})[0], ReferenceEvaluator(model).run(None, {"x": x})[0]
    print(f"{call}: {np.isnan(got).sum()} NaN; {np.isnan(expected).sum()} by onnx's reference")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" -W ignore "$folder/maximum.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
onnxruntime 1.32.0
GlobalMaxPool(x): 0 NaN; 1 by onnx's reference
ReduceMax(x, axes): 0 NaN; 1 by onnx's reference
ReduceMin(x, axes): 0 NaN; 1 by onnx's reference
GlobalAveragePool(x): 1 NaN; 1 by onnx's reference
Relu(x): 1 NaN; 1 by onnx's reference
Max(x, zero): 1 NaN; 1 by onnx's reference
EXPECTED
