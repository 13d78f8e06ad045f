#!/usr/bin/env bash
# ONNX Runtime on a CPU computes a float16 network in float32 and so hides that it overflows.
#
# It has few float16 kernels for x86 and puts casts around the others, then drops each cast to float16 that is cast back
# at once, even with all optimisations off. Between two such layers nothing is rounded to float16 or becomes infinite:
# a norm whose squares exceed 65504 gives the right number there and infinity on a GPU. A float16 export that "agrees
# on the CPU" is therefore no proof. The reference evaluator of onnx overflows, and so does ONNX Runtime for a tensor
# that is an output of the network.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/overflow.py" <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

TEXT = """
<ir_version: 9, opset_import: ["": 17]>
norm (float16[1, 4] x) => (OUTPUTS) { s = Mul(x, x) n = ReduceSum(s) y = Sqrt(n) }
"""
x = np.full((1, 4), 300, np.float16)
print("onnxruntime", onnxruntime.__version__)
for outputs in ("float16[1, 1] y", "float16[1, 1] y, float16[1, 4] s"):
    model = onnx.parser.parse_model(TEXT.replace("OUTPUTS", outputs))
    onnx.checker.check_model(model, full_check=True)
    print(f"outputs {outputs}")
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        print(f"  {level}: {[output.ravel()[0].item() for output in session.run(None, {'x': x})]}")
    reference = ReferenceEvaluator(model).run(None, {"x": x})
    print(f"  reference: {[output.ravel()[0].item() for output in reference]}")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" -W ignore "$folder/overflow.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
onnxruntime 1.32.0
outputs float16[1, 1] y
  ORT_ENABLE_ALL: [600.0]
  ORT_DISABLE_ALL: [600.0]
  reference: [inf]
outputs float16[1, 1] y, float16[1, 4] s
  ORT_ENABLE_ALL: [600.0, inf]
  ORT_DISABLE_ALL: [600.0, inf]
  reference: [inf, inf]
EXPECTED
