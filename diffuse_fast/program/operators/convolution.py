"""Conv and ConvTranspose."""

from __future__ import annotations

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Convolution, Level, View
from .pad import sizes
from .registry import handles

_MAX_SLICES = 64  # of a volume: each is an operation


@handles("Conv", "ConvTranspose")
def convolution(call: Call) -> Value:
    transposed = call.node.op == "ConvTranspose"
    x, weight, bias = call.view(0), call.view(1), call.optional(2)
    spatial = len(x.dims) - 2
    kernel = weight.shape[2:]
    if spatial not in (1, 2, 3) or len(kernel) != spatial or (spatial == 3 and transposed):
        raise call.unsupported(f"{spatial} spatial dimensions")
    if (call.integers("kernel_shape") or kernel) != kernel:
        raise call.malformed("has a kernel_shape that is not its weight's")
    if any(call.lowering.level(v) != Level.CONSTANT for v in (weight, bias) if v is not None):
        raise call.unsupported("its weight is computed while the network runs")
    strides = positive(call, "strides", spatial)
    dilations = positive(call, "dilations", spatial)
    groups = call.integer("group", 1)
    channels, filters = (0, 1) if transposed else (1, 0)
    inputs, outputs = (weight.shape[channels], weight.shape[filters])
    inputs, outputs = (inputs, outputs * groups) if transposed else (inputs * groups, outputs)
    if groups < 1 or inputs % groups or outputs % groups or (bias is not None and bias.shape != (outputs,)):
        raise call.malformed(f"has {groups} groups of {weight.shape} channels")
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if transposed:
        pads, size = _transposed_pads(call, x.shape[2:], strides, reach)
    else:
        x, outside = _padded(call, x)
        pads = padding(call, x.shape[2:], strides, reach)
        pads = [(a + b, c + d) for (a, c), (b, d) in zip(pads, outside, strict=True)]
        size = [(n + a + b - r) // s + 1 for n, (a, b), r, s in zip(x.shape[2:], pads, reach, strides, strict=True)]
    if x.shape[1] != inputs or min(size) < 1:
        raise call.malformed(f"does not fit its input {list(x.shape)}")
    images = x.shape[0]
    if views.batch_place(x) != (0, 1):
        x, weight, bias, groups = _as_groups(call, x, weight, bias, groups)
        outputs *= images // x.shape[0]
    dims = [x.dims[0], *(((n, 1),) if n > 1 else () for n in (outputs, *size))]
    layout = views.new_dims(views.channels_last(len(dims)), dims)
    weights = (weight,) if bias is None else (weight, bias)
    if spatial == 3:
        if groups > 1:
            raise call.unsupported("groups in 3 spatial dimensions")
        return Tensor(_slices(call, x, weights, layout, Convolution(strides, tuple(pads), dilations)))
    result = call.lowering.emit(Convolution(strides, tuple(pads), dilations, groups, transposed), (x, *weights), layout)
    if images != x.shape[0]:
        result = call.lowering.reshape(result, (images, outputs * x.shape[0] // images, *size))
    return Tensor(result)


def _as_groups(call: Call, x: View, weight: View, bias: View | None, groups: int) -> tuple[View, View, View | None, int]:
    """A convolution of several images per sample, in one dimension with the batch, as one of groups with the same weights."""
    (batch, *inside), channels, *spatial = x.dims[0], *x.dims[1:]
    if views.batch_place(View(x.buffer, x.offset, ((batch,),))) is None:
        raise call.unsupported("its first dimension is not the batch")
    count = x.shape[0] // call.lowering.batch

    def repeated(view: View) -> View:
        return View(view.buffer, view.offset, (views.merged([(count, 0), *view.dims[0]]), *view.dims[1:]))

    x = View(x.buffer, x.offset, ((batch,), views.merged([*inside, *channels]), *spatial))
    return x, repeated(weight), None if bias is None else repeated(bias), groups * count


def _slices(call: Call, x: View, weights: tuple[View, ...], layout: tuple[tuple[views.Dim, ...], int], kind: Convolution) -> View:
    """A convolution of a volume as one of an image per slice of the result: the slices that it reads are the image's channels."""
    lowering = call.lowering
    (stride, before, dilation) = kind.strides[0], kind.pads[0][0], kind.dilations[0]
    weight, depth, taps = weights[0], x.shape[2], weights[0].shape[2]
    flat = Convolution(kind.strides[1:], kind.pads[1:], kind.dilations[1:])
    result = View(lowering.new_buffer(layout[1], lowering.level(x).stage), 0, layout[0])
    if result.shape[2] > _MAX_SLICES:
        raise call.unsupported(f"{result.shape[2]} slices of a volume")
    for place in range(result.shape[2]):
        inside = [k for k in range(taps) if 0 <= place * stride - before + k * dilation < depth]
        if not inside:
            raise call.unsupported("a slice of padding only")
        first, count = inside[0], len(inside)
        image = lowering.narrow(x, 2, place * stride - before + first * dilation, count, dilation)
        image = views.join(image, ((0,), (2, 1), (3,), (4,)))
        filters = views.join(lowering.narrow(weight, 2, first, count), ((0,), (2, 1), (3,), (4,)))
        target = views.squeeze(lowering.narrow(result, 2, place, 1), (2,))
        lowering.fill(flat, (image, filters, *weights[1:]), target)
    return result


def positive(call: Call, name: str, count: int) -> tuple[int, ...]:
    found = call.integers(name) or (1,) * count
    if len(found) != count or min(found) < 1 or max(found) > 1 << 20:
        raise call.malformed(f"has {name} {list(found)[:20]}")
    return found


def padding(call: Call, size: tuple[int, ...], strides: tuple[int, ...], reach: list[int]) -> list[tuple[int, int]]:
    """(before, after) of each spatial dimension."""
    count = len(size)
    mode = call.text("auto_pad", "NOTSET")
    pads = call.integers("pads") or (0,) * 2 * count
    if mode == "NOTSET":
        if len(pads) != 2 * count or min(pads) < 0 or max(pads) > 1 << 20:
            raise call.malformed(f"has pads {list(pads)[:20]}")
        return [(pads[i], pads[count + i]) for i in range(count)]
    if mode == "VALID":
        return [(0, 0)] * count
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.malformed(f"has auto_pad {mode!r}")
    total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, strides, reach, strict=True)]
    return [(n // 2, n - n // 2) if mode == "SAME_UPPER" else (n - n // 2, n // 2) for n in total]


def _padded(call: Call, x: View) -> tuple[View, list[tuple[int, int]]]:
    """If the input is padded by zeros in space, what is padded and by how much: the convolution pads it itself."""
    nothing = [(0, 0)] * (len(x.dims) - 2)
    node = call.lowering.producers.get(call.node.inputs[0])
    if node is None or node.op != "Pad" or node.domain:
        return x, nothing
    before = Call(call.lowering, node)
    inner = before.view(0)
    pads = sizes(before, len(inner.dims))
    if before.text("mode", "constant") != "constant" or (before.has(2) and before.constant(2).any()):
        return x, nothing
    if any(min(p) < 0 for p in pads) or any(max(p) for p in pads[:2]):
        return x, nothing
    return inner, pads[2:]


def _transposed_pads(
    call: Call, size: tuple[int, ...], strides: tuple[int, ...], reach: list[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """What is cut from the full result before and after, and the size of what remains."""
    extra = call.integers("output_padding") or (0,) * len(size)
    if call.integers("output_shape") or call.text("auto_pad", "NOTSET") != "NOTSET":
        raise call.unsupported("output_shape or auto_pad")
    pads = call.integers("pads") or (0,) * 2 * len(size)
    if len(pads) != 2 * len(size) or len(extra) != len(size) or min(pads) < 0 or min(extra) < 0:
        raise call.malformed(f"has pads {list(pads)[:20]}")
    if max(*pads, *extra) > 1 << 20:
        raise call.malformed(f"has pads {list(pads)[:20]}")
    cut = [(pads[i], pads[len(size) + i]) for i in range(len(size))]
    whole = [(n - 1) * s + r + e for n, s, r, e in zip(size, strides, reach, extra, strict=True)]
    return cut, [n - a - b for n, (a, b) in zip(whole, cut, strict=True)]
