"""Precision: an fp32 ONNX made into one of lower precision, with what needs it kept higher.

Precision lives in the ONNX, not in builder flags: TensorRT 11 has no FP16 flag, TensorRT-RTX never
had one, and every network is strongly typed. An fp16 or bf16 ONNX has weights and activations of
that type and *islands* of fp32 (:mod:`typed`, :mod:`islands`); an int8 one has explicit Q/DQ
around the operators that TensorRT runs in int8 (:mod:`qdq`), with ranges from real images
(:mod:`measure`, :mod:`ranges`). :mod:`advise` tries the result on those images, and keeps operators
in higher precision where the features would miss their floors.
"""

from builders.precision.search import Images, lower
from builders.precision.typed import describe, rounded_in_fp32, to_low

__all__ = ["Images", "describe", "lower", "rounded_in_fp32", "to_low"]
