#!/usr/bin/env bash
# An attention row whose mask forbids everything is zero in PyTorch and the mean of all values in the exported ONNX.
#
# Below opset 23 (the default is lower) torch.onnx.export writes the mask as -3.4e38 and adds a guard that replaces NaN
# by zero. For want of an infinity no NaN arises: the softmax of such a row is even, and it reads the very tokens that
# are masked. Padded batches have such rows (a mask of both query and key), so features that are averaged over all
# tokens shift with the padding, though an export compared on full batches agrees. opset_version=23 writes one
# Attention, which gives zero; or leave the queries unmasked and drop their rows at the end.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/export.py" <<'PY'
import logging
import warnings

import onnxruntime
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Attention(torch.nn.Module):
    def forward(self, x, mask):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def rows(output):
    return [[round(value, 3) for value in row] for row in output[0, 0].tolist()]


tokens = torch.tensor([[[[1.0, 2.0], [1.0, 2.0], [100.0, 200.0]]]])  # the last is padding
there = torch.tensor([True, True, False])
mask = (there[:, None] & there)[None, None]
print("torch", torch.__version__.partition("+")[0])
print("PyTorch:", rows(Attention()(tokens, mask)))
for opset in (None, 23):
    exported = torch.onnx.export(
        Attention(), (tokens, mask), dynamo=True, opset_version=opset, verbose=False
    ).model_proto
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": tokens.numpy(), "mask": mask.numpy()})
    print(f"opset {exported.opset_import[0].version}:", rows(output))
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnx-ir==1.1.0 onnxscript==0.7.2 onnxruntime==1.32.0 2>/dev/null
"$folder/venv/bin/python" "$folder/export.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
torch 2.13.0
PyTorch: [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]
opset 20: [[1.0, 2.0], [1.0, 2.0], [34.0, 68.0]]
opset 23: [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]
EXPECTED
