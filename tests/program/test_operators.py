"""Each operator in a model of a few nodes: its program against onnxruntime, and the refusal of what is not supported."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from diffuse_fast.errors import ArtifactError, UnsupportedError
from diffuse_fast.program.lower import lower_file
from diffuse_fast.program.program import Attention, Gather, Linear, Map, Norm, Pool, Resize, Unary
from diffuse_fast.program.reference import Reference
from tests.program.models import error, node, random_inputs, steps, unfused, weights_of, write

RNG = np.random.default_rng(0)


def floats(*shape: int, low: float | None = None) -> np.ndarray:
    """Random numbers; with ``low`` uniform from it to low + 1."""
    if low is None:
        return RNG.standard_normal(shape).astype(np.float32)
    return (RNG.random(shape) + low).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def scalar(number: float) -> np.ndarray:
    return np.array(number, np.float32)


@dataclass
class Case:
    """A model: nodes from x, with the shape ``x`` per sample, to y."""

    nodes: list[onnx.NodeProto]
    x: tuple[int, ...] = (6, 4, 5)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    conditions: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    opset: int = 21
    tolerance: float = 2e-6

    def write(self, path):
        return write(path, self.nodes, self.x, self.weights, self.conditions, self.opset)


def one(
    op: str, *inputs: str, x: tuple[int, ...] = (6, 4, 5), opset: int = 21, weights=None, conditions=None, **attributes
) -> Case:
    """A model of one node that reads x first."""
    return Case([node(op, ["x", *inputs], ["y"], "it", **attributes)], x, weights or {}, conditions or {}, opset)


def chain(*texts: str, x: tuple[int, ...] = (6, 4, 5), weights=None, conditions=None, opset: int = 21) -> Case:
    """A model of several nodes, written as :func:`steps` reads them."""
    return Case(steps(*texts), x, weights or {}, conditions or {}, opset)


def positive(op: str, **attributes) -> Case:
    """An operator that needs positive numbers."""
    nodes = [node("Abs", ["x"], ["a"]), node("Add", ["a", "one"], ["b"]), node(op, ["b"], ["y"], **attributes)]
    return Case(nodes, weights={"one": scalar(0.5)})


IMAGE = (6, 5, 4)
NEAREST_TEXT = "mode='nearest'; coordinate_transformation_mode='asymmetric'; nearest_mode='floor'"
HALF = {"half": scalar(0.5)}

ELEMENTWISE = {
    **{op: one(op) for op in ("Abs", "Neg", "Exp", "Sin", "Cos", "Tanh", "Sigmoid", "Relu", "Softplus", "Erf", "Softsign", "Elu")},
    **{op: one(op) for op in ("Ceil", "Floor", "Round", "Selu", "Celu", "HardSigmoid", "HardSwish", "LeakyRelu", "Identity")},
    **{op: positive(op) for op in ("Sqrt", "Log", "Reciprocal")},
    "Mish": one("Mish"),
    "Gelu": one("Gelu", opset=20),
    "Gelu tanh": one("Gelu", opset=20, approximate="tanh"),
    "Elu alpha": one("Elu", alpha=0.3),
    "Celu alpha": one("Celu", alpha=2.0),
    "LeakyRelu alpha": one("LeakyRelu", alpha=0.2),
    "HardSigmoid alpha": one("HardSigmoid", alpha=0.3, beta=0.1),
    "PRelu": one("PRelu", "w", weights={"w": floats(6, 1, 1)}),
    "Clip": one("Clip", "low", "high", weights={"low": scalar(-0.5), "high": scalar(0.3)}),
    "Clip above": one("Clip", "", "high", weights={"high": scalar(0.3)}),
    "Add number": one("Add", "n", weights={"n": scalar(0.3)}),
    "Sub number": one("Sub", "n", weights={"n": scalar(0.3)}),
    "number Sub": chain("Sub n x -> y", weights={"n": scalar(0.3)}),
    "Div number": one("Div", "n", weights={"n": scalar(3)}),
    "number Div": chain("Abs x -> a", "Exp a -> b", "Div n b -> y", weights={"n": scalar(0.3)}),
    "Pow 2": one("Pow", "n", weights={"n": scalar(2)}),
    "Pow 3": one("Pow", "n", weights={"n": scalar(3)}),
    "Pow half": chain("Abs x -> a", "Pow a n -> y", weights={"n": scalar(0.5)}),
    "Pow of two": chain("Abs x -> a", "Pow a x -> y"),
    "number Pow": chain("Pow n x -> y", weights={"n": scalar(2.5)}),
    "Add per channel": one("Add", "w", weights={"w": floats(6, 1, 1)}),
    "weight Sub": chain("Sub w x -> y", weights={"w": floats(1, 4, 5)}),
    "weight Div": chain("Exp x -> e", "Div w e -> y", weights={"w": floats(1, 6, 1, 5)}),
    "Mul by a larger rank": chain("Mul x w -> m", "Squeeze m a -> y", weights={"w": floats(1, 1, 4, 5), "a": ints(0)}, x=(4, 5)),
    "Add condition": chain("Unsqueeze c a -> u", "Add u x -> y", conditions={"c": ("float32", (6,))}, weights={"a": ints(2, 3)}),
    "Max": one("Max", "w", "n", weights={"w": floats(4, 5), "n": scalar(0.1)}),
    "Min": one("Min", "w", weights={"w": floats(4, 1)}),
    "Sum": one("Sum", "x", "w", weights={"w": floats(4, 5)}),
    "Mean": one("Mean", "w", "x", weights={"w": floats(4, 5)}),
    "ones": chain("Shape x -> s", "ConstantOfShape s -> z", "Cos z -> o", "Mul x o -> y"),
    "Where of a constant": chain("Where w x n -> y", weights={"w": np.ones((1, 1, 1, 1), bool), "n": scalar(1)}),
    "dropped": one("Dropout"),
}

ACTIVATIONS = {
    "silu": (chain("Sigmoid x -> s", "Mul x s -> y"), "silu"),
    "silu, reversed": (chain("Sigmoid x -> s", "Mul s x -> y"), "silu"),
    "mish": (chain("Softplus x -> s", "Tanh s -> tt", "Mul x tt -> y"), "mish"),
    "gelu, half last": (
        chain(
            "Div x root -> d",
            "Erf d -> e",
            "Add e one -> p",
            "Mul x p -> m",
            "Mul m half -> y",
            weights={"root": scalar(2**0.5), "one": scalar(1), **HALF},
        ),
        "gelu",
    ),
    "gelu, half first": (
        chain(
            "Mul x root -> d",
            "Erf d -> e",
            "Add one e -> p",
            "Mul half x -> h",
            "Mul h p -> y",
            weights={"root": scalar(0.5**0.5), "one": scalar(1), **HALF},
        ),
        "gelu",
    ),
    "gelu, half of the curve": (
        chain(
            "Mul x root -> d",
            "Erf d -> e",
            "Add e one -> p",
            "Mul half p -> h",
            "Mul x h -> y",
            weights={"root": scalar(0.5**0.5), "one": scalar(1), **HALF},
        ),
        "gelu",
    ),
    "gelu tanh, cube": (
        chain(
            "Pow x three -> c",
            "Mul c k -> s",
            "Add x s -> a",
            "Mul a r -> i",
            "Tanh i -> tt",
            "Add tt one -> p",
            "Mul x p -> m",
            "Mul m half -> y",
            weights={"three": scalar(3), "k": scalar(0.044715), "r": scalar((2 / np.pi) ** 0.5), "one": scalar(1), **HALF},
        ),
        "gelu_tanh",
    ),
    "gelu tanh, products": (
        chain(
            "Mul x x -> q",
            "Mul q x -> c",
            "Mul c k -> s",
            "Add x s -> a",
            "Mul a r -> i",
            "Tanh i -> tt",
            "Add one tt -> p",
            "Mul x half -> h",
            "Mul h p -> y",
            weights={"k": scalar(0.044715), "r": scalar((2 / np.pi) ** 0.5), "one": scalar(1), **HALF},
        ),
        "gelu_tanh",
    ),
    "gelu tanh, factored": (
        chain(
            "Mul x x -> q",
            "Mul q k -> s",
            "Add s one -> a",
            "Mul a x -> f",
            "Mul f r -> i",
            "Tanh i -> tt",
            "Add tt one -> p",
            "Mul p half -> h",
            "Mul x h -> y",
            weights={"k": scalar(0.044715), "r": scalar((2 / np.pi) ** 0.5), "one": scalar(1), **HALF},
        ),
        "gelu_tanh",
    ),
}

NOT_ACTIVATIONS = {
    "sigmoid of another": chain("Neg x -> n", "Sigmoid n -> s", "Mul x s -> y"),
    "gelu with another root": chain(
        "Mul x root -> d",
        "Erf d -> e",
        "Add e one -> p",
        "Mul half p -> h",
        "Mul x h -> y",
        weights={"root": scalar(0.708), "one": scalar(1), **HALF},
    ),
    "gelu without the half": chain(
        "Mul x root -> d", "Erf d -> e", "Add e one -> p", "Mul x p -> y", weights={"root": scalar(0.5**0.5), "one": scalar(1)}
    ),
    "gelu of another": chain(
        "Mul x root -> d",
        "Erf d -> e",
        "Add e one -> p",
        "Mul half p -> h",
        "Tanh x -> z",
        "Mul z h -> y",
        weights={"root": scalar(0.5**0.5), "one": scalar(1), **HALF},
    ),
    "gelu tanh with a square": chain(
        "Pow x two -> c",
        "Mul c k -> s",
        "Add x s -> a",
        "Mul a r -> i",
        "Tanh i -> tt",
        "Add tt one -> p",
        "Mul x p -> m",
        "Mul m half -> y",
        weights={"two": scalar(2), "k": scalar(0.044715), "r": scalar((2 / np.pi) ** 0.5), "one": scalar(1), **HALF},
    ),
}

SHAPE = {
    "Reshape": one("Reshape", "s", weights={"s": ints(0, 2, -1, 5)}),
    "Reshape, merged": one("Reshape", "s", weights={"s": ints(0, -1)}),
    "Reshape with the batch": chain(
        "Reshape x s -> a", "Tanh a -> b", "Reshape b z -> y", weights={"s": ints(-1, 4, 5), "z": ints(-1, 6, 4, 5)}
    ),
    "Reshape, copied": chain("Transpose x -> tt; perm=[0, 2, 1, 3]", "Reshape tt s -> y", weights={"s": ints(0, 8, 15)}),
    "Reshape by the shape": chain(
        "Shape x -> s",
        "Gather s i -> b; axis=0",
        "Concat b r -> z; axis=0",
        "Reshape x z -> y",
        weights={"i": ints(0), "r": ints(24, 5)},
    ),
    "Flatten": one("Flatten"),
    "Flatten 2": chain("Flatten x -> f; axis=2", "Reshape f s -> y", weights={"s": ints(-1, 6, 20)}),
    "Transpose": one("Transpose", perm=[0, 3, 1, 2]),
    "Transpose the batch": chain("Transpose x -> tt; perm=[2, 0, 1, 3]", "Sin tt -> u", "Transpose u -> y; perm=[1, 2, 0, 3]"),
    "Squeeze": chain("Unsqueeze x a -> u", "Exp u -> e", "Squeeze e a -> y", weights={"a": ints(1, -1)}),
    "Squeeze several": chain("Squeeze x a -> y", x=(1, 4, 1, 3), weights={"a": ints(1, -2)}),
    "Expand": one("Expand", "s", weights={"s": ints(1, 6, 7, 5)}, x=(6, 1, 5)),
    "Expand smaller": one("Expand", "s", weights={"s": ints(4, 1)}, x=(4, 5)),
    "Expand the batch": chain(
        "Shape x -> s; end=1",
        "Concat s r -> z; axis=0",
        "Expand w z -> e",
        "Concat e x -> y; axis=1",
        weights={"w": floats(1, 2, 5), "r": ints(2, 5)},
        x=(3, 5),
    ),
    "Tile": one("Tile", "n", weights={"n": ints(1, 2, 1, 3)}),
    "Tile of size 1": one("Tile", "n", weights={"n": ints(1, 3, 2)}, x=(1, 5)),
    "Slice": one("Slice", "s", "e", "a", weights={"s": ints(1, -3), "e": ints(5, 1000), "a": ints(1, -1)}),
    "Slice by steps": one(
        "Slice", "s", "e", "a", "d", weights={"s": ints(0, 1), "e": ints(6, 5), "a": ints(1, 3), "d": ints(2, 3)}
    ),
    "Slice backwards": one(
        "Slice", "s", "e", "a", "d", weights={"s": ints(-1), "e": ints(-(2**62) - 9), "a": ints(2), "d": ints(-1)}
    ),
    "Slice of a doubled image": chain(
        f"Resize x _ z -> u; {NEAREST_TEXT}",
        "Slice u s e a -> y",
        weights={"z": np.array([1, 1, 2, 2], np.float32), "s": ints(1), "e": ints(6), "a": ints(2)},
    ),
    "Split": chain("Split x n -> a b; axis=1", "Concat b a -> y; axis=1", weights={"n": ints(2, 4)}),
    "Split by number": chain("Split x -> a b c; axis=3; num_outputs=3", "Add a b -> y", x=(6, 4, 5)),
    "Concat": chain("Sin x -> s", "Concat s x s -> y; axis=1"),
    "Concat of rows": chain("Sin x -> s", "Concat x s -> y; axis=-2"),
    "Concat of levels": chain(
        "Cast t -> f; to=1",
        "Unsqueeze f a -> u",
        "Concat u c x -> y; axis=1",
        x=(5,),
        conditions={"c": ("float32", (3,))},
        weights={"a": ints(1)},
    ),
    "DepthToSpace": one("DepthToSpace", blocksize=2, x=(8, 3, 4)),
    "DepthToSpace CRD": one("DepthToSpace", blocksize=2, mode="CRD", x=(8, 3, 4)),
    "SpaceToDepth": one("SpaceToDepth", blocksize=2, x=(3, 4, 6)),
    "Cast": chain("Cast t -> f; to=1", "Cast f -> g; to=1", "Unsqueeze g a -> u", "Mul x u -> y", x=(5,), weights={"a": ints(1)}),
    "bool to float": chain("Cast m -> f; to=1", "Mul x f -> y", x=(5,), conditions={"m": ("bool", (5,))}),
    "whole arithmetic": chain(
        "Mul t n -> a",
        "Add a n -> b",
        "Cast b -> f; to=1",
        "Unsqueeze f z -> u",
        "Mul x u -> y",
        x=(5,),
        weights={"n": ints(3), "z": ints(1)},
    ),
}

CONDITION = {
    "Greater": chain("Greater x n -> g", "Cast g -> f; to=1", "Mul f x -> y", weights={"n": scalar(0.2)}),
    "Less, Not, And, Or": chain(
        "Less x n -> l",
        "Greater x m -> g",
        "Not l -> o",
        "And o g -> a",
        "Or a l -> r",
        "Cast r -> f; to=1",
        "Add f x -> y",
        weights={"n": scalar(-0.5), "m": scalar(0.5)},
    ),
    "softplus with a threshold": chain("Softplus x -> s", "Greater x n -> g", "Where g x s -> y", weights={"n": scalar(20)}),
    "softplus with beta": chain(
        "Mul x b -> u",
        "Softplus u -> s",
        "Div s b -> d",
        "Greater u n -> g",
        "Where g x d -> y",
        weights={"n": scalar(20), "b": scalar(2)},
    ),
    "scores masked by a constant": chain(
        "Where w x n -> s", "Softmax s -> y", weights={"w": np.tril(np.ones((4, 5), bool)), "n": scalar(-np.inf)}
    ),
    "scores masked by a low number": chain(
        "Where w n x -> s", "Softmax s -> y", weights={"w": np.triu(np.ones((4, 5), bool), 1), "n": scalar(-1e9)}
    ),
    "mask of a condition": chain(
        "Where m o n -> k",
        "Unsqueeze k a -> u",
        "Add x u -> s",
        "Softmax s -> y",
        conditions={"m": ("bool", (4, 5))},
        weights={"o": scalar(0), "n": scalar(-1e9), "a": ints(1)},
    ),
    "the other of a constant": chain("Where w n x -> y", weights={"w": np.zeros((1, 1, 1, 1), bool), "n": scalar(1)}),
    "a number for all": chain("Where w n x -> z", "Add z x -> y", weights={"w": np.ones((1, 1, 1, 1), bool), "n": scalar(1)}),
}

GATHER = {
    "embedding": chain("Gather w t -> e", "Add x e -> y", x=(5,), weights={"w": floats(7, 5)}),
    "embedding of a list": chain(
        "Gather w c -> e", "Add x e -> y", x=(4, 5), weights={"w": floats(7, 5)}, conditions={"c": ("int64", (4,))}
    ),
    "embedding along columns": chain(
        "Gather w t -> e; axis=1", "Transpose e -> f", "Add x f -> y", x=(5,), weights={"w": floats(5, 7)}
    ),
    "row": one("Gather", "i", weights={"i": np.array(-2)}, axis=1),
    "rows": one("Gather", "i", weights={"i": ints(0, 2, 4)}, axis=1),
    "rows in disorder": one("Gather", "i", weights={"i": ints(3, 0, -1, 3)}, axis=2),
    "table of rows": chain("Gather x i -> y; axis=1", weights={"i": np.array([[0, 2], [5, 1]])}),
}

PAD = {
    "constant": one("Pad", "p", weights={"p": ints(0, 0, 1, 0, 0, 0, 2, 3)}),
    "number": one("Pad", "p", "n", weights={"p": ints(0, 1, 0, 0, 0, 0, 0, 2), "n": scalar(1.5)}),
    "axes": one("Pad", "p", "", "a", weights={"p": ints(1, 2), "a": ints(-1)}),
    "cut": one("Pad", "p", weights={"p": ints(0, 0, -1, 2, 0, 0, 0, -1)}),
    "reflect": one("Pad", "p", weights={"p": ints(0, 0, 1, 2, 0, 0, 2, 0)}, mode="reflect"),
    "edge": one("Pad", "p", weights={"p": ints(0, 0, 1, 2, 0, 0, 2, 0)}, mode="edge"),
    "before a convolution": chain(
        "Pad x p -> q", "Conv q w -> y; strides=[2, 2]", weights={"p": ints(0, 0, 0, 0, 0, 0, 1, 1), "w": floats(3, 6, 3, 3)}
    ),
    "by a number before a convolution": chain(
        "Pad x p n -> q", "Conv q w -> y", weights={"p": ints(0, 0, 0, 0, 0, 0, 1, 1), "n": scalar(2), "w": floats(3, 6, 3, 3)}
    ),
}

W = {"w": floats(7, 6, 3, 3), "b": floats(7)}
CONVOLUTION = {
    "plain": one("Conv", "w", "b", weights=W, x=IMAGE),
    "without bias": one("Conv", "w", weights=W, x=IMAGE),
    "pads": one("Conv", "w", "b", weights=W, x=IMAGE, pads=[1, 2, 0, 1], strides=[2, 1]),
    "dilations": one("Conv", "w", "b", weights=W, x=(6, 7, 8), dilations=[2, 3]),
    "SAME_UPPER": one("Conv", "w", "b", weights=W, x=IMAGE, auto_pad="SAME_UPPER", strides=[2, 2]),
    "SAME_LOWER": one("Conv", "w", "b", weights=W, x=IMAGE, auto_pad="SAME_LOWER", strides=[2, 2]),
    "VALID": one("Conv", "w", "b", weights=W, x=IMAGE, auto_pad="VALID"),
    "groups": one("Conv", "w", "b", weights={"w": floats(8, 3, 3, 3), "b": floats(8)}, x=IMAGE, group=2),
    "depthwise": one("Conv", "w", weights={"w": floats(6, 1, 3, 3)}, x=IMAGE, group=6, pads=[1, 1, 1, 1]),
    "pointwise": one("Conv", "w", "b", weights={"w": floats(7, 6, 1, 1), "b": floats(7)}, x=IMAGE),
    "one filter": one("Conv", "w", "b", weights={"w": floats(1, 6, 3, 3), "b": floats(1)}, x=IMAGE, pads=[1, 1, 1, 1]),
    "1-D": one("Conv", "w", "b", weights={"w": floats(7, 6, 5), "b": floats(7)}, x=(6, 9), pads=[2, 1], strides=[2]),
    "of a transposed tensor": chain(
        "Transpose x -> tt; perm=[0, 2, 1]", "Conv tt w -> y; pads=[1, 1]", x=(9, 6), weights={"w": floats(7, 6, 3)}
    ),
    "of a doubled image": chain(
        f"Resize x _ z -> u; {NEAREST_TEXT}",
        "Conv u w b -> y; pads=[1, 1, 1, 1]",
        x=IMAGE,
        weights={"z": np.array([1, 1, 2, 2], np.float32), **W},
    ),
    "standardised weights": chain(
        "ReduceMean w a -> m",
        "Sub w m -> d",
        "Mul d d -> q",
        "ReduceMean q a -> v",
        "Add v n -> e",
        "Sqrt e -> r",
        "Div d r -> s",
        "Conv x s b -> y",
        x=IMAGE,
        weights={**W, "a": ints(1, 2, 3), "n": scalar(1e-5)},
    ),
    "3-D": one("Conv", "w", "b", weights={"w": floats(5, 3, 3, 2, 3), "b": floats(5)}, x=(3, 4, 5, 4), pads=[1, 0, 1, 1, 0, 1]),
    "3-D, strides": one(
        "Conv", "w", weights={"w": floats(5, 3, 2, 1, 3)}, x=(3, 7, 4, 4), strides=[2, 1, 2], dilations=[3, 1, 1], pads=[1] * 6
    ),
    "transposed": one(
        "ConvTranspose", "w", "b", weights={"w": floats(6, 5, 4, 4), "b": floats(5)}, x=IMAGE, strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "transposed, uneven": one(
        "ConvTranspose", "w", weights={"w": floats(6, 5, 3, 4)}, x=IMAGE, strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 0]
    ),
    "transposed, dilated": one("ConvTranspose", "w", weights={"w": floats(6, 5, 3, 3)}, x=IMAGE, dilations=[2, 1]),
    "transposed, groups": one(
        "ConvTranspose", "w", "b", weights={"w": floats(6, 4, 3, 3), "b": floats(8)}, x=IMAGE, group=2, strides=[2, 1]
    ),
    "transposed 1-D": one("ConvTranspose", "w", weights={"w": floats(6, 5, 4)}, x=(6, 7), strides=[2], pads=[1, 1]),
}

M = {"m": floats(5, 7), "v": floats(5), "b": floats(7)}
PRODUCT = {
    "MatMul": one("MatMul", "m", weights=M),
    "MatMul of a row": one("MatMul", "m", weights=M, x=(5,)),
    "MatMul by a vector": one("MatMul", "v", weights=M),
    "MatMul from the left": chain("MatMul m x -> y", weights={"m": floats(7, 4)}),
    "MatMul of a vector": chain("MatMul m x -> y", weights={"m": floats(4)}),
    "MatMul by several weights": one("MatMul", "m", weights={"m": floats(6, 5, 7)}),
    "MatMul of two results": chain("Transpose x -> tt; perm=[0, 1, 3, 2]", "MatMul x tt -> y"),
    "MatMul, broadcast": chain(
        "Unsqueeze c a -> u", "MatMul x u -> y", conditions={"c": ("float32", (5, 3))}, weights={"a": ints(1)}
    ),
    "MatMul of channels": chain(
        "Conv x w -> c", "Transpose c -> tt; perm=[0, 2, 3, 1]", "MatMul tt m -> y", weights={"w": floats(5, 6, 1, 1), **M}
    ),
    "Gemm": one("Gemm", "m", "b", weights=M, x=(5,)),
    "Gemm, transposed": one("Gemm", "m", "b", weights={"m": floats(7, 5), "b": floats(1, 7)}, x=(5,), transB=1),
    "Gemm, no bias": one("Gemm", "m", weights=M, x=(5,)),
    "Gemm, scaled": one("Gemm", "m", "b", weights=M, x=(5,), alpha=0.5, beta=2.0),
    "Gemm, beta": one("Gemm", "m", "b", weights=M, x=(5,), beta=0.25),
    "Gemm, one number": one("Gemm", "m", "b", weights={**M, "b": floats(1)}, x=(5,)),
    "Gemm, added": chain("Gemm x m c -> y", x=(5,), weights=M, conditions={"c": ("float32", (7,))}),
    "Gemm of a wide batch": chain(
        "Reshape x s -> r", "Gemm r m b -> g", "Reshape g z -> y", weights={**M, "s": ints(-1, 5), "z": ints(-1, 6, 4, 7)}
    ),
    "Einsum, weight": one("Einsum", "m", weights={"m": floats(6, 5, 2)}, equation="bchw,cwo->bhco"),
    "Einsum, linear": one("Einsum", "m", weights={"m": floats(2, 6)}, equation="bchw,oc->bohw"),
    "Einsum, two sums": one("Einsum", "m", weights={"m": floats(6, 5, 2)}, equation="bchw,cwo->bho"),
    "Einsum, attention": chain("Einsum x x -> y; equation='b h i d, b h j d -> b h i j'"),
    "Einsum, weights per head": one("Einsum", "m", weights={"m": floats(6, 5, 2)}, equation="bhid,hdo->bhio"),
    "Einsum, columns first": chain("Einsum x c -> y; equation='bcij,bjk->bkci'", conditions={"c": ("float32", (5, 3))}),
    "Einsum, ellipsis": one("Einsum", "m", weights={"m": floats(5, 3)}, equation="...i,ij->...j"),
    "Einsum, implicit": chain(
        "Einsum x m -> p; equation='nchw,wo'", "Transpose p -> y; perm=[2, 0, 1, 3]", weights={"m": floats(5, 3)}
    ),
    "Einsum, one": one("Einsum", equation="bchw->bwc"),
    "Einsum, summed first": one("Einsum", "m", weights={"m": floats(4, 2)}, equation="bchw,ho->bco"),
    "Einsum, outer": chain("Einsum x c -> y; equation='bi,bj->bij'", x=(4,), conditions={"c": ("float32", (3,))}),
    "Einsum, patches": one("Einsum", x=(2, 3, 2, 2, 4), equation="nhwpqc->nchpwq"),
}

G = {"s": floats(6), "b": floats(6)}
NORM = {
    "GroupNormalization 21": one("GroupNormalization", "s", "b", weights=G, num_groups=3, epsilon=1e-3),
    "GroupNormalization 18": one("GroupNormalization", "s", "b", weights={"s": floats(3), "b": floats(3)}, num_groups=3, opset=18),
    "InstanceNormalization": one("InstanceNormalization", "s", "b", weights=G, epsilon=1e-3),
    "InstanceNormalization of groups": chain(
        "Reshape x z -> r",
        "InstanceNormalization r i o -> n",
        "Shape x -> h",
        "Reshape n h -> k",
        "Mul k s -> m",
        "Add m b -> y",
        weights={
            "z": ints(0, 2, -1),
            "i": np.ones(2, np.float32),
            "o": np.zeros(2, np.float32),
            "s": floats(6, 1, 1),
            "b": floats(6, 1, 1),
        },
        opset=18,
    ),
    "LayerNormalization": one("LayerNormalization", "s", "b", weights={"s": floats(5), "b": floats(5)}),
    "LayerNormalization, two axes": one("LayerNormalization", "s", weights={"s": floats(4, 5)}, axis=-2, epsilon=1e-3),
    "LayerNormalization, plain": one("LayerNormalization", "s", weights={"s": np.ones(5, np.float32)}),
    "LayerNormalization, one": one("LayerNormalization", "s", weights={"s": floats(1)}, x=(3, 1)),
    "RMSNormalization": one("RMSNormalization", "s", weights={"s": floats(5)}, opset=23, epsilon=1e-3),
    "BatchNormalization": one(
        "BatchNormalization", "s", "b", "m", "v", weights={**G, "m": floats(6), "v": floats(6, low=0.5)}, epsilon=1e-2
    ),
    "LpNormalization": one("LpNormalization", axis=1, opset=21),
}

A = {"a": ints(1, 2), "eps": scalar(1e-3)}
SPELLED_NORMS = {
    "standard": (
        chain(
            "ReduceMean x a -> m",
            "Sub x m -> d",
            "Pow d two -> q",
            "ReduceMean q a -> v",
            "Add v eps -> e",
            "Sqrt e -> r",
            "Div d r -> y",
            weights={**A, "two": scalar(2)},
        ),
        "standard",
    ),
    "standard by a reciprocal": (
        chain(
            "ReduceMean x a -> m",
            "Sub x m -> d",
            "Mul d d -> q",
            "ReduceMean q a -> v",
            "Add v eps -> e",
            "Sqrt e -> r",
            "Reciprocal r -> i",
            "Mul i d -> y",
            weights=A,
        ),
        "standard",
    ),
    "rms": (
        chain(
            "Mul x x -> q",
            "ReduceMean q a -> v; keepdims=0",
            "Unsqueeze v a -> u",
            "Add u eps -> e",
            "Sqrt e -> r",
            "Div x r -> y",
            weights=A,
        ),
        "rms",
    ),
    "rms, one over": (
        chain(
            "Pow x two -> q",
            "ReduceMean q a -> v",
            "Add v eps -> e",
            "Sqrt e -> r",
            "Div one r -> i",
            "Mul x i -> y",
            weights={**A, "two": scalar(2), "one": scalar(1)},
        ),
        "rms",
    ),
    "l2": (chain("ReduceL2 x a -> n", "Clip n eps -> c", "Shape x -> s", "Expand c s -> e", "Div x e -> y", weights=A), "l2"),
}

REDUCE = {
    **{op: one(op, "a", weights={"a": ints(2, -1)}) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")},
    **{op: one(op, "a", weights={"a": ints(1)}, keepdims=0) for op in ("ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare")},
    "axes as an attribute": one("ReduceMean", opset=17, axes=[1, 3]),
    "nothing": one("ReduceSum", noop_with_empty_axes=1),
    "Softmax": one("Softmax"),
    "Softmax of channels": one("Softmax", axis=1),
    "LogSoftmax": one("LogSoftmax", axis=-2),
}

POOL = {
    "mean": one("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "mean, padded": one("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 2, 1]),
    "mean, padding counted": one("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 2, 1], count_include_pad=1),
    "max": one("MaxPool", kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1]),
    "1-D": one("AveragePool", kernel_shape=[3], strides=[2], x=(6, 9)),
    "global": one("GlobalAveragePool"),
    "global max": one("GlobalMaxPool"),
}


def resized(x: tuple[int, ...] = (3, 4, 5), scales: tuple[float, ...] = (), sizes: tuple[int, ...] = (), **more) -> Case:
    weights = {"z": np.array(scales, np.float32)} if scales else {"n": ints(*sizes)}
    inputs = ["x", "", "z"] if scales else ["x", "", "", "n"]
    return Case([node("Resize", inputs, ["y"], "it", **more)], x, weights)


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
RESIZE = {
    "doubled": resized(scales=(1, 1, 2, 2), **NEAREST),
    "tripled, half pixels": resized(scales=(1, 1, 3, 2)),
    "halved": resized(scales=(1, 1, 0.5, 0.5), x=(3, 4, 6), **NEAREST),
    "by 1.5": resized(scales=(1, 1, 1.5, 1.3), **NEAREST),
    "1-D": resized(scales=(1, 1, 2), x=(3, 4), **NEAREST),
    "linear": resized(scales=(1, 1, 2, 2), mode="linear"),
    "linear by 1.5": resized(scales=(1, 1, 1.5, 0.7), mode="linear"),
    "linear, pytorch": resized(scales=(1, 1, 2, 2), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    "linear, aligned": resized(scales=(1, 1, 2, 3), mode="linear", coordinate_transformation_mode="align_corners"),
    "linear, asymmetric": resized(scales=(1, 1, 2, 2), mode="linear", coordinate_transformation_mode="asymmetric"),
    "cubic": resized(scales=(1, 1, 2, 2), mode="cubic"),
    "cubic by 1.5": resized(scales=(1, 1, 1.5, 0.7), mode="cubic", cubic_coeff_a=-0.5),
    "cubic, pytorch": resized(scales=(1, 1, 2, 3), mode="cubic", coordinate_transformation_mode="pytorch_half_pixel"),
    "cubic, aligned": resized(scales=(1, 1, 3, 2), mode="cubic", coordinate_transformation_mode="align_corners"),
    "cubic, inside only": resized(scales=(1, 1, 2, 1.3), mode="cubic", exclude_outside=1),
    "axes": Case([node("Resize", ["x", "", "z"], ["y"], axes=[2, 3], **NEAREST)], (3, 4, 5), {"z": np.array([2, 2], np.float32)}),
    "to the shape": chain(
        "Shape x -> s; end=2",
        "Concat s r -> n; axis=0",
        f"Resize x _ _ n -> y; {NEAREST_TEXT}",
        x=(3, 4, 5),
        weights={"r": ints(8, 10)},
    ),
}


def attends(*, queries=(2, 5, 8), keys=(2, 7, 8), values=(2, 7, 6), mask=None, opset=23, **more) -> Case:
    """Attention of x with a condition."""
    conditions = {"k": ("float32", keys), "v": ("float32", values)}
    inputs = ["x", "k", "v"]
    weights = {}
    if isinstance(mask, np.ndarray):
        weights["m"] = mask
        inputs.append("m")
    elif mask is not None:
        conditions["m"] = mask
        inputs.append("m")
    return Case([node("Attention", inputs, ["y"], "it", **more)], queries, weights, conditions, opset)


ATTENTION = {
    "4-D": attends(),
    "scale": attends(scale=0.3),
    "3-D": attends(queries=(5, 16), keys=(7, 16), values=(7, 12), q_num_heads=2, kv_num_heads=2),
    "grouped": attends(queries=(4, 5, 8)),
    "grouped 3-D": attends(queries=(5, 32), keys=(7, 16), values=(7, 12), q_num_heads=4, kv_num_heads=2),
    "causal": attends(keys=(2, 5, 8), values=(2, 5, 6), is_causal=1),
    "mask": attends(mask=floats(5, 7)),
    "boolean mask": attends(mask=np.tril(np.ones((5, 7), bool), 2)),
    "mask per head": attends(mask=floats(1, 2, 5, 7)),
    "mask per sample": attends(mask=("float32", (1, 5, 7))),
}


CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "elementwise": ELEMENTWISE,
        "activation": {n: c for n, (c, _) in ACTIVATIONS.items()},
        "no activation": NOT_ACTIVATIONS,
        "shape": SHAPE,
        "condition": CONDITION,
        "gather": GATHER,
        "pad": PAD,
        "convolution": CONVOLUTION,
        "product": PRODUCT,
        "norm": NORM,
        "spelled norm": {n: c for n, (c, _) in SPELLED_NORMS.items()},
        "reduce": REDUCE,
        "pool": POOL,
        "resize": RESIZE,
        "attention": ATTENTION,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_the_program_computes_what_onnxruntime_does(name, tmp_path):
    case = CASES[name]
    path = case.write(tmp_path / "model.onnx")
    for program in (unfused(path), lower_file(path)):
        for batch in (1, 3):
            assert error(path, random_inputs(path, batch), program) < case.tolerance


def stages(case: Case, tmp_path) -> list:
    program = unfused(case.write(tmp_path / "model.onnx"))
    return [stage for op in program.operations for stage in op.prologue]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_spelled_activation_is_one_stage(name, tmp_path):
    case, function = ACTIVATIONS[name]
    assert stages(case, tmp_path) == [Unary(function)]


@pytest.mark.parametrize("name", NOT_ACTIVATIONS)
def test_another_product_is_no_activation(name, tmp_path):
    found = {getattr(stage, "function", "") for stage in stages(NOT_ACTIVATIONS[name], tmp_path)}
    assert found.isdisjoint({"silu", "gelu", "gelu_tanh", "mish"})


def test_a_softplus_with_a_threshold_is_one(tmp_path):
    assert stages(CONDITION["softplus with a threshold"], tmp_path) == [Unary("softplus")]


@pytest.mark.parametrize("name", SPELLED_NORMS)
def test_a_spelled_norm_is_one_stage(name, tmp_path):
    case, kind = SPELLED_NORMS[name]
    found = stages(case, tmp_path)
    assert len(found) == 1 and isinstance(found[0], Norm)
    assert (found[0].kind, found[0].axes, found[0].groups) == (kind, (0, 1), 1) and found[0].epsilon == pytest.approx(1e-3)


def kinds(case: Case, tmp_path) -> list[type]:
    program = unfused(case.write(tmp_path / "model.onnx"))
    return [type(op.kind) for op in program.operations]


@pytest.mark.parametrize(
    "name", ["Reshape", "Transpose", "Slice by steps", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Squeeze several"]
)
def test_moving_elements_costs_nothing(name, tmp_path):
    """Only the copy to the output is left."""
    assert kinds(SHAPE[name], tmp_path) == [Map]


def test_whole_factors_of_a_resize_cost_nothing(tmp_path):
    assert kinds(RESIZE["tripled, half pixels"], tmp_path) == [Map]
    assert kinds(RESIZE["linear"], tmp_path) == [Resize, Resize, Map]


def test_a_product_with_a_weight_is_linear(tmp_path):
    for name in ("MatMul", "MatMul of channels", "Gemm", "Einsum, linear", "Einsum, two sums"):
        assert Linear in kinds(PRODUCT[name], tmp_path)


def test_kinds_of_others(tmp_path):
    assert Gather in kinds(GATHER["embedding"], tmp_path)
    assert Gather not in kinds(GATHER["rows"], tmp_path)
    assert Attention in kinds(ATTENTION["grouped"], tmp_path)
    assert Pool in kinds(POOL["mean"], tmp_path)


def test_padding_before_a_convolution_is_the_convolutions(tmp_path):
    assert len(kinds(PAD["before a convolution"], tmp_path)) == 2
    assert len(kinds(PAD["by a number before a convolution"], tmp_path)) > 2


def test_the_mask_of_a_boolean_condition(tmp_path):
    """Against the mask in numbers, as onnxruntime does not run it."""
    case = attends(mask=("bool", (1, 5, 7)))
    numbers = attends(mask=("float32", (1, 5, 7)))
    given, path = case.write(tmp_path / "bool.onnx"), numbers.write(tmp_path / "numbers.onnx")
    inputs = random_inputs(given, 3, seed=1)
    inputs[-1][..., 0] = True
    with np.errstate(divide="ignore"):
        expected = error(path, [*inputs[:-1], np.log(inputs[-1].astype(np.float32))], unfused(path))
    assert expected < 2e-6
    with np.errstate(divide="ignore"):
        a = Reference(unfused(given), weights_of(given))(inputs[0], inputs[1], inputs[2:])
        b = Reference(unfused(path), weights_of(path))(*inputs[:2], [*inputs[2:-1], np.log(inputs[-1].astype(np.float32))])
    np.testing.assert_allclose(a, b, atol=1e-12)


# ---- refused ------------------------------------------------------------------------------------

REFUSED = {
    "no such operator": one("LRN", size=3),
    "another domain": Case([node("Conv", ["x"], ["y"], "it", domain="com.example")]),
    "an attribute": one("Conv", "w", weights=W, x=IMAGE, surprise=1),
    "4-D convolution": one("Conv", "w", weights={"w": floats(2, 3, 1, 1, 1, 1)}, x=(3, 4, 5, 6, 2)),
    "3-D transposed convolution": one("ConvTranspose", "w", weights={"w": floats(3, 2, 1, 1, 1)}, x=(3, 4, 5, 6)),
    "many slices": one("Conv", "w", weights={"w": floats(2, 3, 1, 1, 1)}, x=(3, 65, 2, 2)),
    "softplus with a low threshold": chain("Softplus x -> s", "Greater x n -> g", "Where g x s -> y", weights={"n": scalar(2)}),
    "computed weights": chain(
        "Unsqueeze c a -> k", "Conv x k -> y", conditions={"c": ("float32", (6,))}, weights={"a": ints(2, 3)}
    ),
    "the batch reduced": chain("ReduceMean x a -> m", "Sub x m -> y", weights={"a": ints(0)}),
    "the batch sliced": chain("Slice x a b -> y", weights={"a": ints(0), "b": ints(1)}),
    "the batch doubled": chain("Concat x x -> y; axis=0"),
    "samples mixed": chain(
        "Transpose x -> q; perm=[1, 0, 2, 3]",
        "Reshape q s -> r",
        "Reshape r z -> y",
        weights={"s": ints(-1, 3, 4, 5), "z": ints(-1, 6, 4, 5)},
    ),
    "softmax over the batch": one("Softmax", axis=0),
    "float to integer": chain("Cast x -> i; to=7", "Cast i -> y; to=1"),
    "float64": chain("Cast x -> d; to=11", "Cast d -> y; to=1"),
    "a chosen result": chain("Greater x n -> g", "Exp x -> e", "Where g e x -> y", weights={"n": scalar(0)}),
    "a chosen element": chain("Where w x n -> y", weights={"w": np.array([True, False, True, True, False]), "n": scalar(0)}),
    "cubic with another coefficient": resized(scales=(1, 1, 2, 2), mode="cubic", cubic_coeff_a=-2.0),
    "indices of maxima": Case([node("MaxPool", ["x"], ["y", "i"], "it", kernel_shape=[2, 2])]),
    "a further output": Case(
        [*steps("LayerNormalization x w -> n m"), node("Add", ["n", "m"], ["y"])], (6, 4, 5), {"w": floats(5)}
    ),
    "a short mask": attends(mask=floats(5, 1)),
    "softcap with a mask": attends(mask=floats(5, 7), softcap=3.0),
    "training": Case([node("Dropout", ["x", "r", "z"], ["y"], "it")], weights={"r": scalar(0.5), "z": np.array(True)}),
    "an old operator set": one("Relu", opset=11),
    "float16 weights": one("Add", "w", weights={"w": np.zeros((6, 4, 5), np.float16)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused(name, tmp_path):
    path = REFUSED[name].write(tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError):
        lower_file(path)


def test_a_refusal_names_operator_node_and_module(tmp_path):
    case = chain("Conv x net.up.0.conv.weight -> c", "LRN c -> y; size=3", weights={"net.up.0.conv.weight": floats(7, 6, 3, 3)})
    with pytest.raises(UnsupportedError, match=r"LRN .* node 'LRN_1' in the module 'net\.up\.0\.conv'"):
        lower_file(case.write(tmp_path / "model.onnx"))


@pytest.mark.parametrize("op, function", [("Exp", np.exp), ("Sin", np.sin), ("Cos", np.cos), ("Tanh", np.tanh)])
def test_folded_functions_are_those_of_float64_rounded_once(op, function, tmp_path):
    """NumPy's float32 forms are a last place off here and there, and not on every processor at the same places."""
    numbers = np.linspace(-4, 4, 1000).astype(np.float32)
    path = write(tmp_path / "model.onnx", [
        *steps(f"Constant -> n; value_floats={numbers.tolist()}", f"{op} n -> f", "Add x f -> y"),
    ], (1000,))  # fmt: skip
    (folded,) = [buffer.values for buffer in lower_file(path).buffers if buffer.values is not None]
    assert folded.tobytes() == function(numbers.astype(np.float64)).astype(np.float32).tobytes()


def branching(condition, then, otherwise, weights=None, **inside):
    """y = then if condition(shape of x) else otherwise; both branches name their values alike, and use values around them."""

    def branch(texts):
        result = [helper.make_tensor_value_info("out", 1, None)]
        return helper.make_graph(steps(*texts), "branch", [], result, [numpy_helper.from_array(a, n) for n, a in inside.items()])

    nodes = [
        *steps("Relu x -> positive", "Shape x -> shape", *condition),
        node("If", ["condition"], ["chosen"], "it", then_branch=branch(then), else_branch=branch(otherwise)),
        *steps("Add chosen x -> y"),
    ]
    return Case(nodes, weights={"two": np.array(2), "four": np.array(4), **(weights or {})})


TALL = ("Gather shape two -> height", "Equal height four -> condition")  # x has 4 rows
WIDE = (*TALL[:1], "Greater height four -> condition")
AROUND = ("Tanh positive -> inner", "Neg inner -> out")
BRANCHES = {
    "then": branching(TALL, AROUND, ("Exp x -> inner", "Abs inner -> out")),
    "else": branching(WIDE, ("Exp x -> inner", "Abs inner -> out"), AROUND),
    "the other branch is not supported": branching(TALL, AROUND, ("LRN x -> out; size=3",)),
    "a value around": branching(TALL, ("Identity positive -> out",), AROUND),
    "a constant inside": branching(TALL, ("Mul positive half -> out",), AROUND, half=np.array(0.5, np.float32)),
    "a condition of the file": branching(("Not no -> condition",), AROUND, ("Exp x -> out",), weights={"no": np.array(False)}),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_the_branch_of_a_known_condition_is_inlined(name, tmp_path):
    path = BRANCHES[name].write(tmp_path / "model.onnx")
    assert error(path, random_inputs(path, 3)) <= 2e-6


def test_branches_in_branches_and_in_functions(tmp_path):
    inner = BRANCHES["then"].nodes
    result = [helper.make_tensor_value_info("y", 1, None)]
    outer = helper.make_graph(inner, "outer", [], result)
    weights = {"yes": np.array(True)} | BRANCHES["then"].weights
    nested = [node("If", ["yes"], ["z"], "it", then_branch=outer, else_branch=outer), node("Neg", ["z"], ["y"])]
    signature = (["x", "two", "four"], ["y"])
    function = helper.make_function("local", "Called", *signature, inner, [helper.make_opsetid("", 21)])
    twice = [node("Called", [name, "two", "four"], [result], domain="local") for name, result in (("x", "a"), ("a", "y"))]
    for nodes, functions in ((nested, ()), (twice, (function,))):
        path = write(tmp_path / "model.onnx", nodes, (6, 4, 5), weights, functions=functions)
        assert error(path, random_inputs(path, 3)) <= 2e-6


def test_a_condition_on_an_input_is_refused(tmp_path):
    case = branching(("Greater t two -> condition",), AROUND, AROUND)
    with pytest.raises(UnsupportedError, match=r"If \(the input 0 is no constant\), node 'it'"):
        lower_file(case.write(tmp_path / "model.onnx"))


def test_a_weight_inside_of_a_branch_is_refused(tmp_path):
    case = branching(TALL, ("Mul positive large -> out",), AROUND, large=floats(6, 4, 5))
    with pytest.raises(UnsupportedError, match="the weight 'chosen/large' inside of a branch"):
        lower_file(case.write(tmp_path / "model.onnx"))


MALFORMED = {
    "sizes that do not fit": one("Add", "w", weights={"w": floats(4, 4)}),
    "a reshape that does not fit": one("Reshape", "s", weights={"s": ints(-1, 7)}),
    "channels that do not fit": one("Conv", "w", weights={"w": floats(7, 5, 3, 3)}),
    "an axis out of range": one("Softmax", axis=4),
    "an undefined value": one("Add", "nothing"),
    "a missing input": one("MatMul"),
    "a permutation that is none": one("Transpose", perm=[0, 0, 1, 2]),
    "an index out of range": one("Gather", "i", weights={"i": ints(6)}, axis=1),
    "a division by zero": chain("Shape x -> s", "Div s z -> q", "Reshape x q -> y", weights={"z": ints(0)}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_no_runtime_could_run_is_an_artifact_error(name, tmp_path):
    with pytest.raises(ArtifactError):
        lower_file(MALFORMED[name].write(tmp_path / "model.onnx"))
