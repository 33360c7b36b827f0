"""The numbers of a TensorProto that lie within the file. Field numbers are those of ``onnx.proto3``."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArtifactError
from .header import DTYPES
from .protobuf import VARINT, Field, Span, Wire

MAX_PACKED = 1 << 20  # bytes of packed numbers, each of which becomes an object: shapes and axes are short

# Of the types that are read: NumPy's type on disk, and the fields that hold packed numbers of it as these bytes, or as varints.
_READ = {"float32": ("<f4", (4, 9), ()), "int64": ("<i8", (9,), (7,))}


def shape(wire: Wire, span: Span) -> tuple[int, ...]:
    """The shape of the tensor at ``span``."""
    return tuple(n for f in wire.fields(span, "a tensor") if f.number == 1 for n in integers(wire, f))


def array(wire: Wire, span: Span) -> np.ndarray | None:
    """The tensor at ``span``; None where it is neither float32 nor int64, or not within the file."""
    kind = ""
    numbers: dict[int, list[Field]] = {}
    for f in wire.fields(span, "a tensor"):
        if f.number == 2:
            kind = DTYPES.get(wire.integer(f, "the type of a tensor"), "")
        elif f.number in (4, 7, 9):
            numbers.setdefault(f.number, []).append(f)
    if kind not in _READ or any(f.span.stop - f.span.start > MAX_PACKED for f in numbers.get(7, ())):
        return None
    stored, packed, counted = _READ[kind]
    raw = b"".join(
        wire.buffer[slice(*wire.message(f, "the numbers of a tensor"))] for number in packed for f in numbers.get(number, ())
    )
    raw += b"".join(np.array(integers(wire, f), stored).tobytes() for number in counted for f in numbers.get(number, ()))
    dims = shape(wire, span)
    if len(raw) != np.dtype(stored).itemsize * math.prod(dims):
        return None
    return np.frombuffer(raw, stored).reshape(dims)


def integers(wire: Wire, f: Field) -> list[int]:
    """One whole number, or packed ones."""
    if f.wire == VARINT:
        return [wire.integer(f, "a number")]
    out, start, stop = [], *wire.message(f, "numbers")
    if stop - start > MAX_PACKED:
        raise ArtifactError(f"a list of numbers is {stop - start} bytes long; at most {MAX_PACKED} are read.")
    while start < stop:
        number, start = wire._varint(start, stop, "a number")
        out.append(number - (1 << 64) if number >= 1 << 63 else number)
    return out
