"""Pad: by a constant with copies into a larger buffer; by reflected or repeated elements with a gather."""

from __future__ import annotations

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import View
from .registry import handles


@handles("Pad")
def pad(call: Call) -> Value:
    x = call.view(0)
    mode = call.text("mode", "constant")
    pads = sizes(call, len(x.dims))
    fill = float(call.constant(2).reshape(())) if call.has(2) else 0.0
    if any(before < 0 or after < 0 for before, after in pads):
        for axis, (before, after) in enumerate(pads):
            kept = x.shape[axis] + min(before, 0) + min(after, 0)
            if kept < 1:
                raise call.malformed(f"cuts all of {list(x.shape)}")
            x = call.lowering.narrow(x, axis, max(-before, 0), kept)
        pads = [(max(before, 0), max(after, 0)) for before, after in pads]
    for axis, (before, after) in enumerate(pads):
        if before == after == 0:
            continue
        if mode == "constant":
            x = _filled(call, x, axis, before, after, fill)
        else:
            x = call.lowering.select(x, axis, _positions(call, mode, x.shape[axis], before, after))
    return Tensor(x)


def sizes(call: Call, rank: int) -> list[tuple[int, int]]:
    """(before, after) of each dimension."""
    numbers = call.integers_of(1)
    axes = [call.axis(a, rank) for a in call.integers_of(3)] if call.has(3) else list(range(rank))
    if len(numbers) != 2 * len(axes):
        raise call.malformed(f"has {len(numbers)} sizes for {len(axes)} dimensions")
    found = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        found[axis] = (numbers[i], numbers[len(axes) + i])
    return found


def _filled(call: Call, x: View, axis: int, before: int, after: int, fill: float) -> View:
    one = call.lowering.constant(np.full((1,) * len(x.dims), fill, np.float32))

    def border(count: int) -> list[View]:
        dims = [views.repeated(dim) for dim in x.dims]
        dims[axis] = ((count, 0),) if count > 1 else ()
        return [views.expand(one, dims)] if count else []

    return call.lowering.concatenate([*border(before), x, *border(after)], axis)


def _positions(call: Call, mode: str, size: int, before: int, after: int) -> np.ndarray:
    if mode not in ("edge", "reflect", "wrap") or (mode == "reflect" and max(before, after) >= size):
        raise call.unsupported(f"mode {mode!r}")
    if before + size + after > 1 << 24:
        raise call.malformed(f"makes {before + size + after} elements")
    # NumPy's types list the modes one by one; they were checked above.
    return np.pad(np.arange(size), (before, after), mode=mode)  # type: ignore[call-overload]
