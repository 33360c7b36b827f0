"""The operators that MNN computes as ONNX says. Any other is refused: what its converter takes it may compute otherwise.

Each was held against onnxruntime with MNN 3.6.1, on what an input and what a convolution gives (which lies in memory in blocks of
channels); the tests hold one graph of each. Their forms that are wrong all the same are in :mod:`.otherwise`. Left out as they are
wrong, or end the process: ``Equal``, ``Less``, ``GatherElements``, ``Mean``, ``Mod``, ``OneHot``, ``ReduceL1``, ``ReduceL2``,
``ReduceLogSum``, ``ReduceLogSumExp``, ``ReduceSumSquare``, ``Round``, ``Shrink``, ``Sum``, and control flow.
"""

MNN = frozenset(
    {
        # of each number
        "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh",
        "Div", "Dropout", "Elu", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
        "LeakyRelu", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu",
        "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Tan", "Tanh", "ThresholdedRelu",
        "Where", "Xor",
        # of shapes and places
        "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "Pad", "Range", "Reshape",
        "Resize", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze",
        "Upsample",
        # sums of products, pools and norms
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "CumSum", "Einsum", "Gemm", "GlobalAveragePool",
        "GlobalMaxPool", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "MatMul", "MaxPool", "ReduceMax",
        "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Softmax",
    }
)  # fmt: skip
