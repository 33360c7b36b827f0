"""Read the values of a TensorProto that are stored in the file. Field numbers are those of ``onnx.proto3``."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArtifactError
from .header import DTYPES
from .protobuf import VARINT, Field, Span, WireReader

MAX_PACKED = 1 << 20  # bytes of packed integers. Each becomes a Python object; shapes and axes are short

# Supported types: NumPy's dtype on disk, the fields that hold the values as raw bytes, and those that hold them as varints.
_READ = {"float32": ("<f4", (4, 9), ()), "int64": ("<i8", (9,), (7,))}


def shape(wire: WireReader, span: Span) -> tuple[int, ...]:
    """Read the shape of the tensor at ``span``."""
    return tuple(n for f in wire.fields(span, "a tensor") if f.number == 1 for n in integers(wire, f))


def array(wire: WireReader, span: Span) -> np.ndarray | None:
    """Read the tensor at ``span``; None unless it is float32 or int64 and stored in the file."""
    kind = ""
    numbers: dict[int, list[Field]] = {}
    for f in wire.fields(span, "a tensor"):
        if f.number == 2:
            kind = DTYPES.get(wire.integer(f, "the type of a tensor"), "")
        elif f.number in (4, 7, 9):
            numbers.setdefault(f.number, []).append(f)
    if kind not in _READ or any(f.span.stop - f.span.start > MAX_PACKED for f in numbers.get(7, ())):
        return None
    stored, raw_fields, varint_fields = _READ[kind]
    raw = b"".join(
        wire.buffer[slice(*wire.message(f, "the numbers of a tensor"))] for number in raw_fields for f in numbers.get(number, ())
    )
    raw += b"".join(np.array(integers(wire, f), stored).tobytes() for number in varint_fields for f in numbers.get(number, ()))
    dims = shape(wire, span)
    if len(raw) != np.dtype(stored).itemsize * math.prod(dims):
        return None
    return np.frombuffer(raw, stored).reshape(dims)


def integers(wire: WireReader, f: Field) -> list[int]:
    """Read a field that holds one integer or packed integers."""
    if f.wire_type == VARINT:
        return [wire.integer(f, "a number")]
    out, start, stop = [], *wire.message(f, "numbers")
    if stop - start > MAX_PACKED:
        raise ArtifactError(f"a list of numbers is {stop - start} bytes long; at most {MAX_PACKED} are read.")
    while start < stop:
        number, start = wire.varint(start, stop, "a number")
        out.append(number - (1 << 64) if number >= 1 << 63 else number)
    return out
