#!/usr/bin/env bash
# TensorRT-RTX builds fp32 convolutions for Turing (SM75), but no fp32 matrix product.
#
# Turing is in its list of compute capabilities and fp32 among its types there, so a farm plans fp32 engines for it.
# Each network with a linear layer (all transformers, ConvNeXt, ...) then fails at the end of its build; the same
# network builds for SM80, and in fp16 for SM75. No GPU is needed to see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/build.py" <<'PY'
import re

import numpy as np
import tensorrt_rtx as trt


class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.errors = ""

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            self.errors += message


def build(kind, dtype, capability):
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    array = {trt.float32: np.float32, trt.float16: np.float16}[dtype]
    if kind == "convolution":
        x = network.add_input("x", dtype, (1, 16, 8, 8))
        layer = network.add_convolution_nd(x, 16, (3, 3), np.ones((16, 16, 3, 3), array))
    else:
        x = network.add_input("x", dtype, (8, 16))
        weights = network.add_constant((16, 16), np.ones((16, 16), array)).get_output(0)
        none = trt.MatrixOperation.NONE
        layer = network.add_matrix_multiply(x, none, weights, none)
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    plan = builder.build_serialized_network(network, config)
    if plan is not None:
        return "builds"
    return ", ".join(re.findall(r"[\w() ]*FP32 GEMM is not supported", log.errors)[:1]).strip()


print("TensorRT-RTX", trt.__version__)
for kind, dtype, capability in [
    ("convolution", trt.float32, trt.ComputeCapability.SM75),
    ("matrix product", trt.float32, trt.ComputeCapability.SM75),
    ("matrix product", trt.float16, trt.ComputeCapability.SM75),
    ("matrix product", trt.float32, trt.ComputeCapability.SM80),
]:
    print(f"{kind}, {dtype.name}, {capability.name}: {build(kind, dtype, capability)}")
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  tensorrt-rtx-cu13==1.7.1.116 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" "$folder/build.py" 2>/dev/null | tee "$folder/output"
diff - "$folder/output" <<'EXPECTED'
TensorRT-RTX 1.7.1.116
convolution, FLOAT, SM75: builds
matrix product, FLOAT, SM75: FP32 GEMM is not supported
matrix product, HALF, SM75: builds
matrix product, FLOAT, SM80: builds
EXPECTED
