#!/usr/bin/env bash
# torch.onnx.export removes the addition of a small constant, even in float32, and so what guards a division.
#
# x / (norm(x) + 1e-12) is 0 for a row of zeros in PyTorch. In the ONNX that the exporter writes by default the
# addition is gone and the same row gives NaN: its optimiser takes an addend of up to 1e-8 for nothing. 1e-7 stays,
# and so does everything with optimize=False. A network that normalises its features this way passes every
# comparison on photos, and fails on a picture whose features are zero.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/export.py" <<'PY'
import logging
import warnings

import onnxruntime
import onnxscript
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Unit(torch.nn.Module):
    def __init__(self, epsilon):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x):
        return x / (x.norm(dim=1, keepdim=True) + self.epsilon)


print(f"torch {torch.__version__.partition('+')[0]}, onnxscript {onnxscript.__version__}")
zeros = torch.zeros(1, 2)
for epsilon in (1e-12, 1e-8, 1e-7):
    for optimize in (True, False):
        exported = torch.onnx.export(
            Unit(epsilon), (torch.ones(1, 2),), dynamo=True, optimize=optimize, verbose=False
        ).model_proto
        adds = sum(node.op_type == "Add" for node in exported.graph.node)
        session = onnxruntime.InferenceSession(exported.SerializeToString())
        (row,) = session.run(None, {exported.graph.input[0].name: zeros.numpy()})[0].tolist()
        print(f"{epsilon:g} optimize={optimize}: {adds} Add, {row}; PyTorch {Unit(epsilon)(zeros)[0].tolist()}")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnx-ir==1.1.0 onnxscript==0.7.2 onnxruntime==1.32.0 2>/dev/null
"$folder/venv/bin/python" "$folder/export.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
torch 2.13.0, onnxscript 0.7.2
1e-12 optimize=True: 0 Add, [nan, nan]; PyTorch [0.0, 0.0]
1e-12 optimize=False: 1 Add, [0.0, 0.0]; PyTorch [0.0, 0.0]
1e-08 optimize=True: 0 Add, [nan, nan]; PyTorch [0.0, 0.0]
1e-08 optimize=False: 1 Add, [0.0, 0.0]; PyTorch [0.0, 0.0]
1e-07 optimize=True: 1 Add, [0.0, 0.0]; PyTorch [0.0, 0.0]
1e-07 optimize=False: 1 Add, [0.0, 0.0]; PyTorch [0.0, 0.0]
EXPECTED
