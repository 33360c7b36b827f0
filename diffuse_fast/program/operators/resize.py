"""Resize: by whole factors to the nearest element it is a view, otherwise an interpolation per axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Resize, View
from .registry import handles

_MAX_SIZE = 1 << 20  # of a dimension: the tables have an entry per element


@handles("Resize")
def resize(call: Call) -> Value:
    x = call.view(0)
    mode = call.text("mode", "nearest")
    coordinates = call.text("coordinate_transformation_mode", "half_pixel")
    rounding = call.text("nearest_mode", "round_prefer_floor")
    coefficient, exclude = call.number("cubic_coeff_a", -0.75), bool(call.integer("exclude_outside"))  # of cubic
    call.ignore("extrapolation_value")  # of a mode that is refused
    if call.integer("antialias"):
        raise call.unsupported("antialias")
    if mode not in ("nearest", "linear", "cubic") or coordinates not in _COORDINATES or rounding not in _ROUNDING:
        raise call.unsupported(f"mode {mode[:20]!r}, {coordinates[:30]!r}, {rounding[:30]!r}")
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.unsupported("keep_aspect_ratio_policy")
    if call.has(1):
        call.value(1)  # the region of a mode that is refused
    for axis, (size, scale) in enumerate(_sizes(call, x.shape)):
        if size == x.shape[axis] and scale == 1:
            continue
        if not 0 < size <= _MAX_SIZE or x.shape[axis] > _MAX_SIZE:
            raise call.unsupported(f"from {x.shape[axis]} to {size} elements")
        at = _COORDINATES[coordinates](np.arange(size), scale, x.shape[axis], size)
        if mode == "nearest":
            x = _nearest(call, x, axis, _ROUNDING[rounding](at))
        elif mode == "linear":
            x = _linear(call, x, axis, at)
        else:
            x = _cubic(call, x, axis, at, coefficient, exclude)
    return Tensor(x)


def _sizes(call: Call, shape: tuple[int, ...]) -> list[tuple[int, float]]:
    """The new size and the scale of each axis."""
    axes = call.integers("axes") or tuple(range(len(shape)))
    axes = tuple(call.axis(a, len(shape)) for a in axes)
    found = [(n, 1.0) for n in shape]
    scales = call.constant(2) if call.has(2) else np.zeros(0)
    if scales.size:
        values = [float(s) for s in scales.ravel()]
        if call.has(3):
            call.value(3)
    elif call.has(3):
        values = [n / shape[a] for n, a in zip(call.integers_of(3), axes, strict=True)]
    else:
        raise call.malformed("has neither scales nor sizes")
    sizes = call.integers_of(3) if not scales.size else None
    if len(values) != len(axes):
        raise call.malformed(f"has {len(values)} scales for {len(axes)} axes")
    for i, axis in enumerate(axes):
        if not 0 < values[i] < 1e6:
            raise call.malformed(f"has the scale {values[i]}")
        found[axis] = (int(np.floor(shape[axis] * values[i])) if sizes is None else sizes[i], values[i])
    return found


def _half_pixel(i: np.ndarray, scale: float, old: int, new: int) -> np.ndarray:
    return (i + 0.5) / scale - 0.5


def _half_pixel_symmetric(i: np.ndarray, scale: float, old: int, new: int) -> np.ndarray:
    adjustment = new / (scale * old)
    return old / 2 * (1 - adjustment) + (i + 0.5) / scale - 0.5


def _pytorch_half_pixel(i: np.ndarray, scale: float, old: int, new: int) -> np.ndarray:
    return (i + 0.5) / scale - 0.5 if new > 1 else np.zeros(new)


def _align_corners(i: np.ndarray, scale: float, old: int, new: int) -> np.ndarray:
    return i * ((old - 1) / (new - 1)) if new > 1 else np.zeros(new)


def _asymmetric(i: np.ndarray, scale: float, old: int, new: int) -> np.ndarray:
    return i / scale


_COORDINATES = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
}
_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _nearest(call: Call, x: View, axis: int, at: np.ndarray) -> View:
    old, new = x.shape[axis], len(at)
    taken = np.clip(at, 0, old - 1).astype(np.int64)
    factor = new // old
    if new == factor * old and (taken == np.arange(new) // factor).all():
        return views.repeat(x, axis, factor)
    if new == 1 or ((np.diff(taken) == taken[1] - taken[0]).all() and taken[1] > taken[0]):
        return call.lowering.select(x, axis, taken)
    return _interpolate(call, x, axis, taken, taken, np.zeros(new))


def _linear(call: Call, x: View, axis: int, at: np.ndarray) -> View:
    old = x.shape[axis]
    at = np.clip(at, 0, old - 1)
    first = np.floor(at).astype(np.int64)
    return _interpolate(call, x, axis, first, np.minimum(first + 1, old - 1), at - first)


def _cubic(call: Call, x: View, axis: int, at: np.ndarray, a: float, exclude: bool) -> View:
    """Keys' cubic convolution over four neighbours: the inner two and the outer two interpolated, weighted and added."""
    if not -1 <= a <= 0:
        raise call.unsupported(f"the cubic coefficient {a:g}")
    taken = np.floor(at)[:, None] + np.arange(-1, 3)
    d = np.abs(at[:, None] - taken)
    weights = np.where(d <= 1, ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)
    if exclude:
        weights *= (taken >= 0) & (taken < x.shape[axis])
        weights /= weights.sum(1, keepdims=True)
    taken = np.clip(taken, 0, x.shape[axis] - 1).astype(np.int64)
    parts = []
    for one, other in ((1, 2), (0, 3)):  # of one sign each
        total = weights[:, one] + weights[:, other]
        share = np.divide(weights[:, other], total, out=np.zeros_like(total), where=np.abs(total) > 1e-12)
        part = _interpolate(call, x, axis, taken[:, one], taken[:, other], share)
        column = total.astype(np.float32).reshape(-1, *[1] * (len(x.dims) - axis - 1))
        parts.append(call.lowering.binary("multiply", part, call.lowering.constant(column)))
    return call.lowering.binary("add", *parts)


def _interpolate(call: Call, x: View, axis: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> View:
    tables = [call.lowering.constant(table.astype(np.float32)) for table in (first, second, weight)]
    dims = list(x.dims)
    dims[axis] = ((len(first), 1),) if len(first) > 1 else ()
    return call.lowering.emit(Resize(axis), (x, *tables), views.new_dims(views.memory_order(x), dims))
