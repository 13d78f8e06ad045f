#!/usr/bin/env bash
# onnx.version_converter shifts a linear Upsample or Resize of an old network by a part of a pixel.
#
# Up to opset 10 an output pixel i lies at i / scale of the input. From opset 11 Resize says which rule holds, and half
# a pixel is the rule if it says nothing. The converter writes nothing, so the picture moves, the checker accepts the
# result and the shapes stay. Nearest upsampling is unharmed, which is what most networks have; segmentation heads and
# feature pyramids with linear upsampling lose accuracy for no reason to be seen. The attribute
# coordinate_transformation_mode="asymmetric", added to the new node, cures it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/convert.py" <<'PY'
import numpy as np
import onnx
import onnxruntime

TEXT = """
<ir_version: 4, opset_import: ["": VERSION]>
up (float[1, 1, 1, 3] x) => (float[1, 1, 1, 6] y) <float[4] scales = {1, 1, 1, 2}>
{ y = OPERATOR<mode = "MODE">(x, scales) }
"""


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.array([[[[0, 4, 8]]]], np.float32)})[0].ravel().tolist()


print("onnx", onnx.__version__)
for operator, version in (("Upsample", 9), ("Resize", 10)):
    for mode in ("nearest", "linear"):
        text = TEXT.replace("OPERATOR", operator).replace("VERSION", str(version)).replace("MODE", mode)
        old = onnx.parser.parse_model(text)
        new = onnx.version_converter.convert_version(old, 17)
        onnx.checker.check_model(new, full_check=True)
        print(f"{mode} {operator} of opset {version}: {run(old)}, converted {run(new)}")
(resize,) = [node for node in new.graph.node if node.op_type == "Resize"]
resize.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
print(f"with the attribute: {run(new)}")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" "$folder/convert.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
onnx 1.23.2
nearest Upsample of opset 9: [0.0, 0.0, 4.0, 4.0, 8.0, 8.0], converted [0.0, 0.0, 4.0, 4.0, 8.0, 8.0]
linear Upsample of opset 9: [0.0, 2.0, 4.0, 6.0, 8.0, 8.0], converted [0.0, 1.0, 3.0, 5.0, 7.0, 8.0]
nearest Resize of opset 10: [0.0, 0.0, 4.0, 4.0, 8.0, 8.0], converted [0.0, 0.0, 4.0, 4.0, 8.0, 8.0]
linear Resize of opset 10: [0.0, 2.0, 4.0, 6.0, 8.0, 8.0], converted [0.0, 1.0, 3.0, 5.0, 7.0, 8.0]
with the attribute: [0.0, 2.0, 4.0, 6.0, 8.0, 8.0]
EXPECTED
