"""The operators and attributes that MNN computes correctly. Others are rejected, because MNN may convert and then miscompute them.

Each form is tested against onnxruntime (MNN 3.6.1), after an input and after a convolution, whose output MNN stores in blocks of
four channels. An operator is listed only if all its forms have a test. Conditions on shapes and constants are in
:mod:`.unsupported_forms`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..onnx.graph import Attribute

# The values of an attribute that are correct; None: all of them.
_Values = tuple[Attribute, ...] | None

_PLAIN = (
    "Abs", "Acos", "Acosh", "Add", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Div", "Erf", "Exp", "Floor",
    "GlobalAveragePool", "HardSwish", "Identity", "Log", "MatMul", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sign",
    "Sin", "Sinh", "Slice", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Tan", "Tanh", "Unsqueeze",
)  # fmt: skip

# Allowed attributes by operator.
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

# Defaults of attributes that are not among the values above.
DEFAULTS: dict[str, Mapping[str, Attribute]] = {
    "Resize": {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    "AveragePool": {"strides": (1, 1)},
}
