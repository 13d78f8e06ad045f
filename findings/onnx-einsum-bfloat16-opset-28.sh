#!/usr/bin/env bash
# ONNX defines Einsum for bfloat16 from opset 28 only, fifteen opsets after MatMul, whose product it is.
#
# Up to opset 27 a converter that turns a whole network into bfloat16 makes an invalid model as soon as it meets one:
# MaxViT's relative positions, which torch.onnx exports as Einsum. In float16 the same converter is right. Celu is worse:
# before opset 28 it takes float32 alone; and Shrink has no bfloat16 in any. Keep these operators in float32, or write the
# einsum as a MatMul before converting.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/defined.py" <<'PY'
import onnx

TEXT = """
<ir_version: 10, opset_import: ["": 22]>
graph (TYPE[2, 3] x, TYPE[3, 4] w) => (TYPE[2, 4] y) { y = OPERATOR(x, w) }
"""
OPERATORS = {"MatMul": "MatMul", "Einsum": 'Einsum<equation = "ij,jk->ik">'}

print("onnx", onnx.__version__, "opset", onnx.defs.onnx_opset_version())
for name, call in OPERATORS.items():
    for kind in ("float", "float16", "bfloat16"):
        model = onnx.parser.parse_model(TEXT.replace("TYPE", kind).replace("OPERATOR", call))
        try:
            onnx.checker.check_model(model, full_check=True)
            print(f"{name} in {kind}: valid")
        except onnx.shape_inference.InferenceError as error:
            print(f"{name} in {kind}: {str(error).strip().rpartition('): ')[2]}")
newest = onnx.defs.onnx_opset_version()
for name in ("MatMul", "Conv", "Elu", "Einsum", "Celu", "Shrink"):
    since = []
    for kind in ("float16", "bfloat16"):
        takes = [
            version
            for version in range(13, newest + 1)
            if f"tensor({kind})" in onnx.defs.get_schema(name, version).type_constraints[0].allowed_type_strs
        ]
        since.append(f"{kind} from {takes[0]}" if takes else f"no {kind}")
    print(f"{name}, opsets 13 to {newest}: {', '.join(since)}")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" "$folder/defined.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
onnx 1.23.2 opset 28
MatMul in float: valid
MatMul in float16: valid
MatMul in bfloat16: valid
Einsum in float: valid
Einsum in float16: valid
Einsum in bfloat16: Inputs typestr: T, has unsupported type: tensor(bfloat16)
MatMul, opsets 13 to 28: float16 from 13, bfloat16 from 13
Conv, opsets 13 to 28: float16 from 13, bfloat16 from 22
Elu, opsets 13 to 28: float16 from 13, bfloat16 from 22
Einsum, opsets 13 to 28: float16 from 13, bfloat16 from 28
Celu, opsets 13 to 28: float16 from 28, bfloat16 from 28
Shrink, opsets 13 to 28: float16 from 13, no bfloat16
EXPECTED
