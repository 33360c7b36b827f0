"""The operators that MNN computes as ONNX says, and in which forms. Anything else is refused: what its converter takes it may
compute otherwise, and it says nothing.

Each form was held against onnxruntime with MNN 3.6.1, on what an input and what a convolution gives (which lies in memory in blocks
of four channels), and the tests hold it still. An operator of which a form has no test is not here. What an attribute does not
tell, such as shapes, is in :mod:`.unsupported_forms`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..onnx.graph import Attribute

# The values of an attribute that are right; None: all of them.
_Values = tuple[Attribute, ...] | None

_PLAIN = (
    "Abs", "Acos", "Acosh", "Add", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Div", "Erf", "Exp", "Floor",
    "GlobalAveragePool", "HardSwish", "Identity", "Log", "MatMul", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sign",
    "Sin", "Sinh", "Slice", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Tan", "Tanh", "Unsqueeze",
)  # fmt: skip

# By operator, the attributes that it may have.
MNN: dict[str, Mapping[str, _Values]] = {
    **{op: {} for op in _PLAIN},
    "AveragePool": {
        "auto_pad": ("NOTSET",), "ceil_mode": (0,), "count_include_pad": None, "dilations": ((1, 1),), "kernel_shape": ((2, 2),),
        "pads": ((0, 0, 0, 0),), "strides": ((2, 2),),
    },
    "BatchNormalization": {"epsilon": None, "momentum": None, "training_mode": (0,)},
    "Cast": {"to": (1, 6, 7), "saturate": (1,)},  # float32, int32, int64
    "Concat": {"axis": None},
    "Constant": {"value_float": None, "value_floats": None, "value_int": None, "value_ints": None},
    "Conv": {
        "auto_pad": ("NOTSET", "SAME_UPPER", "VALID"), "dilations": None, "group": None, "kernel_shape": None, "pads": None,
        "strides": None,
    },
    "ConvTranspose": {
        "auto_pad": ("NOTSET",), "dilations": None, "group": None, "kernel_shape": None, "output_padding": None, "pads": None,
        "strides": None,
    },
    "Gather": {"axis": None},
    "Gemm": {"alpha": None, "beta": None, "transA": (0,), "transB": (0, 1)},
    "InstanceNormalization": {"epsilon": None},
    "LayerNormalization": {"axis": (-1,), "epsilon": None, "stash_type": (1,)},
    "ReduceMean": {"keepdims": (0, 1), "noop_with_empty_axes": (0,)},
    "Reshape": {"allowzero": (0, 1)},
    "Resize": {
        "antialias": (0,), "coordinate_transformation_mode": ("asymmetric",), "cubic_coeff_a": None, "exclude_outside": (0,),
        "extrapolation_value": None, "keep_aspect_ratio_policy": ("stretch",), "mode": ("nearest",), "nearest_mode": ("floor",),
    },
    "Shape": {"start": (0,)},
    "Softmax": {"axis": None},
    "Split": {"axis": None, "num_outputs": None},
    "Transpose": {"perm": None},
}  # fmt: skip

# What an attribute is where a node does not say it, if that is not among the values above.
DEFAULTS: dict[str, Mapping[str, Attribute]] = {
    "Resize": {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    "AveragePool": {"strides": (1, 1)},
}
