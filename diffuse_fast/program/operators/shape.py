"""Operators that only move elements: all are views, except a concatenation and a few reshapes."""

from __future__ import annotations

import math

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import View
from .registry import handles

# TensorProto.DataType -> NumPy's name, for the types of values while the network runs.
_RUN_TYPES = {1: "float32", 3: "int8", 2: "uint8", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}


@handles("Identity")
def identity(call: Call) -> Value:
    return call.value(0)


@handles("Dropout")
def dropout(call: Call) -> Value:
    call.ignore("seed")
    if call.has(1):
        call.value(1)  # the ratio, which inference does not use
    if call.has(2) and call.constant(2).any():
        raise call.unsupported("it is in training mode")
    return call.value(0)


@handles("Cast", "CastLike")
def cast(call: Call) -> Value:
    x = call.tensor(0)
    call.ignore("saturate", "round_mode")
    if call.node.op == "Cast":
        kind = call.integer("to")
        dtype = _RUN_TYPES.get(kind, "")
        if not dtype:
            raise call.unsupported(f"to the type {kind}")
    else:
        like = call.value(1)
        dtype = like.dtype if isinstance(like, Tensor) else like.dtype.name
    if x.dtype == "float32" and dtype != "float32":
        raise call.unsupported(f"from float32 to {dtype}")
    if dtype == "bool" and x.dtype != "bool":
        raise call.unsupported(f"from {x.dtype} to bool")
    if dtype not in _RUN_TYPES.values():
        raise call.unsupported(f"to {dtype}")
    return Tensor(x.view, dtype)


@handles("Shape")
def shape(call: Call) -> Value:
    value = call.value(0)
    sizes = np.array(value.shape, np.int64)
    start, end = call.integer("start", 0), call.integer("end", len(sizes))
    return sizes[start:end]


@handles("Size")
def size(call: Call) -> Value:
    return np.array(math.prod(call.value(0).shape), np.int64)


@handles("Reshape")
def reshape(call: Call) -> Value:
    x = call.tensor(0)
    return Tensor(call.lowering.reshape(x.view, target_shape(call, x.shape)), x.dtype)


def target_shape(call: Call, given: tuple[int, ...]) -> list[int]:
    """The shape that a Reshape asks for."""
    sizes = list(call.integers_of(1))
    if not call.integer("allowzero"):
        sizes = [given[i] if n == 0 else n for i, n in enumerate(sizes)]
    if sizes.count(-1) == 1:
        rest = -math.prod(sizes)
        if rest <= 0 or math.prod(given) % rest:
            raise call.malformed(f"makes {list(given)} {sizes}")
        sizes[sizes.index(-1)] = math.prod(given) // rest
    if any(n < 0 for n in sizes):
        raise call.malformed(f"makes {list(given)} {sizes}")
    return sizes


@handles("Flatten")
def flatten(call: Call) -> Value:
    x = call.tensor(0)
    axis = call.integer("axis", 1)
    axis = axis if axis == len(x.shape) else call.axis(axis, len(x.shape))
    return Tensor(call.lowering.reshape(x.view, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))), x.dtype)


@handles("Transpose")
def transpose(call: Call) -> Value:
    x = call.tensor(0)
    rank = len(x.shape)
    order = call.integers("perm") or tuple(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        raise call.malformed(f"has perm {list(order)[:20]} for {rank} dimensions")
    return Tensor(views.permute(x.view, order), x.dtype)


@handles("Unsqueeze")
def unsqueeze(call: Call) -> Value:
    x = call.tensor(0)
    axes = call.integers_of(1)
    rank = len(x.shape) + len(axes)
    return Tensor(views.unsqueeze(x.view, sorted({call.axis(a, rank) for a in axes})), x.dtype)


@handles("Squeeze")
def squeeze(call: Call) -> Value:
    x = call.tensor(0)
    rank = len(x.shape)
    axes = {call.axis(a, rank) for a in call.integers_of(1)} if call.has(1) else set(range(rank))
    # PyTorch leaves dimensions that are not 1, and so does what its exporter writes; ONNX forbids them.
    return Tensor(views.squeeze(x.view, [i for i in sorted(axes) if x.shape[i] == 1]), x.dtype)


@handles("Expand")
def expand(call: Call) -> Value:
    x = call.tensor(0)
    return Tensor(broadcast_to(call, x.view, call.integers_of(1)), x.dtype)


def broadcast_to(call: Call, x: View, sizes: tuple[int, ...]) -> View:
    """Broadcast as Expand does: the other shape may also be the smaller one."""
    rank = max(len(x.dims), len(sizes))
    x = views.unsqueeze(x, range(rank - len(x.dims)))
    wanted = (1,) * (rank - len(sizes)) + tuple(sizes)
    dims = []
    for dim, have, want in zip(x.dims, x.shape, wanted, strict=True):
        if have not in (1, want) and want != 1:
            raise call.malformed(f"makes {have} elements {want}")
        if want <= 0:
            raise call.unsupported(f"to the size {want}")
        dims.append(dim or views.dim_of(want, 0, call.lowering.batch))
    return views.expand(x, dims)


@handles("Tile")
def tile(call: Call) -> Value:
    x = call.tensor(0)
    view = x.view
    counts = call.integers_of(1)
    for axis, count in enumerate(counts):
        if count < 1 or len(counts) != len(x.shape):
            raise call.malformed(f"repeats {list(x.shape)} {list(counts)} times")
        if count == 1:
            continue
        if not view.dims[axis]:
            dims = list(view.dims)
            dims[axis] = views.dim_of(count, 0, call.lowering.batch)
            view = View(view.buffer, view.offset, tuple(dims))
        elif count % call.lowering.batch == 0:
            raise call.unsupported("it repeats once per sample")
        else:
            view = views.tile(view, axis, count)
    return Tensor(view, x.dtype)


@handles("Slice")
def slice_(call: Call) -> Value:
    x = call.tensor(0)
    view = x.view
    rank = len(x.shape)
    starts, ends = call.integers_of(1), call.integers_of(2)
    axes = call.integers_of(3) if call.has(3) else tuple(range(len(starts)))
    steps = call.integers_of(4) if call.has(4) else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = call.axis(axis, rank)
        taken = range(view.shape[axis])[slice(start, end if end >= -(1 << 62) or step > 0 else None, step)]
        if not taken:
            raise call.unsupported("it is empty")
        if step < 0 and len(taken) > 1:
            view = call.lowering.select(view, axis, np.array(taken))
        else:
            view = call.lowering.narrow(view, axis, taken[0], len(taken), max(step, 1))
    return Tensor(view, x.dtype)


@handles("Split")
def split(call: Call) -> tuple[Value, ...]:
    x = call.tensor(0)
    axis = call.axis(call.integer("axis"), len(x.shape))
    sizes = split_sizes(call, x.shape[axis])
    out, start = [], 0
    for size in sizes:
        out.append(Tensor(call.lowering.narrow(x.view, axis, start, size), x.dtype))
        start += size
    return tuple(out)


def split_sizes(call: Call, total: int) -> tuple[int, ...]:
    """The sizes of the parts that a Split makes of a dimension."""
    count = call.integer("num_outputs", len(call.node.outputs))
    if call.has(1):
        sizes = call.integers_of(1)
    else:
        chunk = max(-(-total // max(count, 1)), 1)
        sizes = tuple(min(chunk, total - start) for start in range(0, total, chunk)[: count + 1])
    if sum(sizes) != total or len(sizes) != len(call.node.outputs) or min(sizes) < 1:
        raise call.malformed(f"cuts {total} elements into {list(sizes)[:20]}")
    return sizes


@handles("Concat")
def concat(call: Call) -> Value:
    parts = [call.tensor(i) for i in range(len(call.node.inputs))]
    axis = call.axis(call.integer("axis"), len(parts[0].shape))
    if len({part.dtype for part in parts}) > 1 or len({len(part.shape) for part in parts}) > 1:
        raise call.malformed("joins tensors of different types or ranks")
    if len(parts) == 1:
        return parts[0]
    return Tensor(call.lowering.concatenate([part.view for part in parts], axis), parts[0].dtype)


@handles("DepthToSpace")
def depth_to_space(call: Call) -> Value:
    x = call.view(0)
    b, c, h, w = x.shape
    block, mode = call.integer("blocksize"), call.text("mode", "DCR")
    if block < 1 or c % block**2 or mode not in ("DCR", "CRD"):
        raise call.malformed(f"has blocksize {block} and mode {mode!r}")
    c //= block**2
    if mode == "DCR":
        cut = views.permute(call.lowering.reshape(x, (b, block, block, c, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        cut = views.permute(call.lowering.reshape(x, (b, c, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return Tensor(views.join(cut, ((0,), (1,), (2, 3), (4, 5))))


@handles("SpaceToDepth")
def space_to_depth(call: Call) -> Value:
    x = call.view(0)
    b, c, h, w = x.shape
    block = call.integer("blocksize")
    if block < 1 or h % block or w % block:
        raise call.malformed(f"has blocksize {block}")
    cut = call.lowering.reshape(x, (b, c, h // block, block, w // block, block))
    return Tensor(views.join(cut, ((0,), (3, 5, 1), (2,), (4,))))
