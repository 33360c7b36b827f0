"""Pooling."""

from __future__ import annotations

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Pool
from .convolution import padding, positive
from .reduce import reduce
from .registry import handles


@handles("AveragePool", "MaxPool")
def pool(call: Call) -> Value:
    x = call.view(0)
    spatial = len(x.dims) - 2
    kernel = call.integers("kernel_shape") or ()
    mean = call.node.op == "AveragePool"
    if spatial not in (1, 2) or len(kernel) != spatial or min(kernel) < 1:
        raise call.unsupported(f"{spatial} spatial dimensions, kernel {list(kernel)[:20]}")
    strides = positive(call, "strides", spatial)
    if max(positive(call, "dilations", spatial)) > 1:
        raise call.unsupported("dilations")
    if call.integer("storage_order") or len([name for name in call.node.outputs if name]) > 1:
        raise call.unsupported("the indices of the maxima")
    pads = padding(call, x.shape[2:], strides, list(kernel))
    size = [n + a + b - k for n, (a, b), k in zip(x.shape[2:], pads, kernel, strict=True)]
    if call.integer("ceil_mode") and any(n % s for n, s in zip(size, strides, strict=True)):
        raise call.unsupported("ceil_mode, with a window beyond the end")
    if min(size) < 0 or any(max(p) >= k for p, k in zip(pads, kernel, strict=True)):
        raise call.malformed(f"does not fit its input {list(x.shape)}")
    if views.batch_place(x) != (0, 1):
        raise call.unsupported("its first dimension is not the batch")
    counted = bool(call.integer("count_include_pad")) if mean else False
    kind = Pool("mean" if mean else "max", kernel, strides, tuple(pads), counted)
    sizes = (x.shape[1], *(n // s + 1 for n, s in zip(size, strides, strict=True)))
    dims = [x.dims[0], *(((n, 1),) if n > 1 else () for n in sizes)]
    return Tensor(call.lowering.emit(kind, (x,), views.new_dims(views.channels_last(len(dims)), dims)))


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Value:
    x = call.view(0)
    function = "mean" if call.node.op == "GlobalAveragePool" else "max"
    return Tensor(reduce(call, x, function, tuple(range(2, len(x.dims)))))
