"""The Attention operator."""

from __future__ import annotations

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Attention, View
from .registry import handles


@handles("Attention")
def attention(call: Call) -> Value:
    q, k, v = (call.view(i) for i in range(3))
    ranks = {len(x.dims) for x in (q, k, v)}
    flat = ranks == {3}
    if not flat and ranks != {4}:
        raise call.malformed(f"has inputs of ranks {sorted(ranks)}")
    q_heads, kv_heads = call.integer("q_num_heads"), call.integer("kv_num_heads")
    if flat:
        q, k, v = (_heads(call, x, n) for x, n in ((q, q_heads), (k, kv_heads), (v, kv_heads)))
    if call.integer("qk_matmul_output_mode") or any(call.node.outputs[1:]):
        raise call.unsupported("it returns the scores or a cache")
    if call.integer("softmax_precision", 1) not in (0, 1):
        raise call.unsupported("softmax_precision")
    shared = q.shape[1] // max(k.shape[1], 1)
    if k.shape[1] != v.shape[1] or q.shape[1] != shared * k.shape[1] or k.shape[2] != v.shape[2] or q.shape[3] != k.shape[3]:
        raise call.malformed(f"combines {[list(x.shape) for x in (q, k, v)]}")
    if shared > 1:  # grouped queries: each key and value serves several heads
        k, v = (views.repeat(x, 1, shared) for x in (k, v))
    causal = bool(call.integer("is_causal"))
    softcap = call.number("softcap", 0.0)
    scale = call.number("scale", 0.0) or q.shape[3] ** -0.5
    lead = [call.lowering.broadcast([x.dims[i] for x in (q, k, v)]) for i in range(2)]
    q, k, v = (views.expand(x, [*lead, *x.dims[2:]]) for x in (q, k, v))
    inputs = [q, k, v]
    if call.has(3):
        if softcap:
            raise call.unsupported("a mask with softcap")  # versions of the operator differ in their order
        inputs.append(_mask(call, (*q.dims[:3], k.dims[2])))
    dims = [*q.dims[:3], v.dims[3]]
    layout = views.new_dims((0, 2, 1, 3), dims)
    result = call.lowering.emit(Attention(scale, causal, softcap), inputs, layout)
    if flat:
        result = views.join(views.permute(result, (0, 2, 1, 3)), ((0,), (1,), (2, 3)))
    return Tensor(result)


def _heads(call: Call, x: View, heads: int) -> View:
    batch, length, width = x.shape
    if heads < 1 or width % heads:
        raise call.malformed(f"cuts {width} channels into {heads} heads")
    return views.permute(call.lowering.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def _mask(call: Call, dims: tuple[views.Dim, ...]) -> View:
    """The mask as numbers that are added: for a boolean 0 or -inf."""
    value = call.value(3)
    if isinstance(value, np.ndarray) and value.dtype == bool:
        mask = call.lowering.constant(np.where(value, np.float32(0), np.float32(-np.inf)))
    elif isinstance(value, Tensor) and value.dtype == "bool":
        mask = call.lowering.unary("log", value.view)
    else:
        mask = call.view(3)
    shape = tuple(views.View(0, 0, dims).shape)
    # A mask that is shorter than the keys is continued, not repeated, in some versions of the operator.
    if (
        not 2 <= len(mask.dims) <= 4
        or mask.shape[-1] != shape[-1]
        or any(n not in (1, m) for n, m in zip(reversed(mask.shape), reversed(shape), strict=False))
    ):
        raise call.unsupported(f"a mask {list(mask.shape)} for the scores {list(shape)}")
    return views.expand(mask, dims)
