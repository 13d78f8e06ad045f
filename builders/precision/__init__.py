"""Converts an fp32 ONNX to a lower precision, keeping sensitive operators in a higher one.

Precision is in the ONNX, not in builder flags: TensorRT 11 has no FP16 flag, TensorRT-RTX never
had one, and every network is strongly typed. An fp16 or bf16 ONNX has weights and activations of
that type and *islands* of fp32 (:mod:`typed`, :mod:`islands`); an int8 ONNX has explicit Q/DQ nodes
around the operators that the runtime runs in int8 (:mod:`qdq`), with ranges from real images
(:mod:`measure`, :mod:`ranges`). :mod:`search` evaluates the result on those images and keeps
operators in higher precision if the features miss the tolerance.
"""

from builders.precision.search import Images, lower
from builders.precision.typed import describe, rounded_in_fp32, to_low

__all__ = ["Images", "describe", "lower", "rounded_in_fp32", "to_low"]
