"""Which operators of an fp16 or bf16 network compute in fp32, and why: a closed set.

Every operator of ONNX that works on floats is in one of the two tables, so that one of a later
release is noticed by a test; until it is sorted in, it stays in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

_SUMS = "sums over many elements: a narrow running sum rounds, which its inputs do not show"
_NORMALISES = "normalises: a narrow type rounds a flat image's norm or deviation to 0"
_EXPONENTIAL = "is exponential: images beyond the calibration set overflow fp16"
_SINGULAR = "has a pole: a narrow type rounds values near it into it"
_RECURRENT = "feeds its result back: rounding adds up"
_GEOMETRY = "computes coordinates or angles: fp16 has 11 bits for them"
_DRAWS = "draws random numbers or makes tables: no part of inference"
_BODY = "holds a graph: its nodes are not converted"

IN_FP32: Mapping[str, str] = {
    operator: reason
    for reason, operators in {
        _SUMS: (
            "CumProd", "CumSum", "Det", "DFT", "GlobalAveragePool", "GlobalLpPool", "LpPool",
            "Mean", "NegativeLogLikelihoodLoss", "ReduceL1", "ReduceL2", "ReduceLogSum",
            "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "STFT",
            "SoftmaxCrossEntropyLoss",
        ),
        _NORMALISES: (
            "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization",
            "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
        ),
        _EXPONENTIAL: (
            "Attention", "Cosh", "Exp", "LinearAttention", "LogSoftmax", "Sinh", "Softmax",
            "Softplus", "Mish",
        ),
        _SINGULAR: ("Acosh", "Atanh", "Log", "Reciprocal", "Tan"),
        _RECURRENT: ("CausalConvWithState", "GRU", "LSTM", "RNN"),
        _GEOMETRY: ("AffineGrid", "DeformConv", "GridSample", "MaxRoiPool", "RoiAlign", "Sin",
                    "Cos", "RotaryEmbedding"),
        _DRAWS: (
            "Bernoulli", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix",
            "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
            "RandomUniformLike",
        ),
        _BODY: ("If", "Loop", "Scan", "SequenceMap"),
    }.items()
    for operator in operators
}  # fmt: skip
"""Operators that compute in fp32, and why."""

_MOVES = "moves, selects or compares values and computes none"
_PRODUCTS = "runtimes accumulate its products in fp32"
_BOUNDED = "bounded, or no larger than its input: overflow shows as a peak on calibration images"
_AFFINE = "one operation per element: overflow shows as a peak on calibration images"

IN_LOW: Mapping[str, str] = {
    operator: reason
    for reason, operators in {
        _MOVES: (
            "ArgMax", "ArgMin", "BitCast", "Cast", "CastLike", "CenterCropPad", "Col2Im",
            "Compress", "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape",
            "DepthToSpace", "Dropout", "Equal", "Expand", "EyeLike", "Flatten", "Gather",
            "GatherElements", "GatherND", "GlobalMaxPool", "Greater", "GreaterOrEqual", "Hardmax",
            "Identity", "IsInf", "IsNaN", "Less", "LessOrEqual", "Max", "MaxPool", "MaxUnpool",
            "Min", "NonZero", "OneHot", "Optional", "OptionalGetElement", "OptionalHasElement",
            "Pad", "Range", "ReduceMax", "ReduceMin", "Reshape", "ReverseSequence", "Scatter",
            "ScatterElements", "ScatterND", "SequenceAt", "SequenceConstruct", "SequenceInsert",
            "Shape", "Size", "Slice", "SpaceToDepth", "Split", "SplitToSequence", "Squeeze",
            "TensorScatter", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where",
        ),
        _PRODUCTS: (
            "AveragePool", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "QLinearMatMul",
            "Resize", "Upsample",
        ),
        _BOUNDED: (
            "Abs", "Acos", "Asin", "Asinh", "Atan", "Ceil", "Celu", "Clip", "Elu", "Erf", "Floor",
            "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mod", "Neg", "PRelu", "Relu",
            "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Softsign", "Sqrt", "Swish", "SwiGLU",
            "Tanh", "ThresholdedRelu",
        ),
        _AFFINE: (
            "Add", "BatchNormalization", "DequantizeLinear", "Div", "Mul", "Pow", "QuantizeLinear",
            "Sub", "Sum",
        ),
    }.items()
    for operator in operators
}  # fmt: skip
"""Operators that compute in the lower type, and why they may.

Where one of them computes with a constant that the type rounds to 0, or a square that is summed,
it stays in fp32 all the same: see :mod:`builders.precision.guards`.
"""


def why_fp32(operator: str) -> str | None:
    """Returns why an operator computes in fp32, None if it may compute in a lower type."""
    if operator in IN_LOW:
        return None
    return IN_FP32.get(operator, "is unknown: neither table lists it")
