"""Norms. Scale and bias are stages behind the norm."""

from __future__ import annotations

import math

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Binary, Norm, Unary, View
from .registry import handles


def normalize(call: Call, x: View, norm: Norm, scale: View | None, bias: View | None) -> View:
    """Apply a norm, then a scale and a bias that have the rank of x."""
    stages: list[Norm | Binary] = [norm]
    for function, operand in (("multiply", scale), ("add", bias)):
        if operand is not None:
            if len(operand.dims) > len(x.dims) or any(
                n not in (1, m) for n, m in zip(reversed(operand.shape), reversed(x.shape), strict=False)
            ):
                raise call.malformed(f"scales {list(x.shape)} by {list(operand.shape)}")
            stages.append(Binary(function, views.expand(operand, x.dims)))
    return call.lowering.map(x, *stages)


def per_channel(vector: View, rank: int) -> View:
    """A vector along the second of ``rank`` dimensions."""
    return View(vector.buffer, vector.offset, ((), vector.dims[0], *[()] * (rank - 2)))


@handles("GroupNormalization")
def group_normalization(call: Call) -> Value:
    x, scale, bias = call.view(0), call.view(1), call.view(2)
    groups, epsilon = call.integer("num_groups"), call.number("epsilon", 1e-5)
    call.ignore("stash_type")  # moments are float32 or better
    rank = len(x.dims)
    channels = x.shape[1]
    count = groups if call.node.opset < 21 else channels  # of the elements of scale and bias
    if groups < 1 or channels % groups or scale.shape != (count,) or bias.shape != (count,):
        raise call.malformed(f"has {groups} groups and a scale {list(scale.shape)} for {channels} channels")
    if count != channels:
        scale, bias = (views.repeat(v, 0, channels // groups) for v in (scale, bias))
    norm = Norm("standard", tuple(range(1, rank)), groups, epsilon)
    return Tensor(normalize(call, x, norm, per_channel(scale, rank), per_channel(bias, rank)))


@handles("InstanceNormalization")
def instance_normalization(call: Call) -> Value:
    x = call.view(0)
    rank = len(x.dims)
    epsilon = call.number("epsilon", 1e-5)
    scale, bias = (call.lowering.known(call.value(i)) for i in (1, 2))
    plain = scale is not None and bias is not None and (scale == 1).all() and (bias == 0).all()
    whole = _reshaped(call, x) if plain else None
    if whole is not None:  # how exporters write a GroupNormalization: the groups as channels
        norm = Norm("standard", tuple(range(1, len(whole.dims))), x.shape[1], epsilon)
        return Tensor(call.lowering.reshape(normalize(call, whole, norm, None, None), x.shape))
    vectors = (call.view(1), call.view(2))
    if any(v.shape != (x.shape[1],) for v in vectors):
        raise call.malformed(f"has a scale {list(vectors[0].shape)}")
    norm = Norm("standard", tuple(range(1, rank)), x.shape[1], epsilon)
    scaled = [None, None] if plain else [per_channel(v, rank) for v in vectors]
    return Tensor(normalize(call, x, norm, *scaled))


def _reshaped(call: Call, x: View) -> View | None:
    """What a Reshape to (batch, groups, -1) before the node got."""
    node = call.lowering.producers.get(call.node.inputs[0])
    if node is None or node.op != "Reshape" or node.domain or len(x.dims) != 3:
        return None
    given = call.lowering.value(node.inputs[0])
    if not isinstance(given, Tensor) or len(given.shape) < 3 or given.shape[0] != x.shape[0] or given.shape[1] % x.shape[1]:
        return None
    return given.view


@handles("LayerNormalization", "RMSNormalization")
def layer_normalization(call: Call) -> Value:
    x, bias = call.view(0), call.optional(2)
    rank = len(x.dims)
    axis = call.axis(call.integer("axis", -1), rank)
    call.ignore("stash_type")
    kind = "standard" if call.node.op == "LayerNormalization" else "rms"
    norm = Norm(kind, tuple(range(axis, rank)), 1, call.number("epsilon", 1e-5))
    return Tensor(normalize(call, x, norm, _unless(call, 1, 1.0), None if bias is None else _unless(call, 2, 0.0)))


def _unless(call: Call, index: int, neutral: float) -> View | None:
    """An operand, unless it is a constant without effect, as exporters write for a missing scale or bias."""
    value = call.value(index)
    if isinstance(value, np.ndarray) and value.size > 1 and (value == neutral).all():
        return None
    return call.view(index)


@handles("LpNormalization")
def lp_normalization(call: Call) -> Value:
    x = call.view(0)
    if call.integer("p", 2) != 2:
        raise call.unsupported("p = 1")
    return Tensor(call.lowering.map(x, Norm("l2", (call.axis(call.integer("axis", -1), len(x.dims)),), 1, 0.0)))


@handles("BatchNormalization")
def batch_normalization(call: Call) -> Value:
    x = call.view(0)
    rank = len(x.dims)
    call.ignore("momentum")
    if call.integer("training_mode"):
        raise call.unsupported("it is in training mode")
    scale, bias, mean, variance = (call.view(i) for i in range(1, 5))
    if any(v.shape != (x.shape[1],) for v in (scale, bias, mean, variance)):
        raise call.malformed(f"does not fit {list(x.shape)}")
    epsilon = call.number("epsilon", 1e-5)
    if not math.isfinite(epsilon):
        raise call.malformed(f"has epsilon {epsilon}")
    factor = call.lowering.map(variance, Binary("add", epsilon), Unary("rsqrt"), Binary("multiply", scale))
    steps = (("subtract", mean), ("multiply", factor), ("add", bias))
    stages = [Binary(function, views.expand(per_channel(v, rank), x.dims)) for function, v in steps]
    return Tensor(call.lowering.map(x, *stages))
