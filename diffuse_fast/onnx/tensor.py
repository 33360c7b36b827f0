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
    kind, numbers = _numbers(wire, span)
    if kind not in _READ or any(f.span.stop - f.span.start > MAX_PACKED for f in numbers.get(7, ())):
        return None
    stored, raw_fields, varint_fields = _READ[kind]
    raw = b"".join(wire.buffer[slice(*part)] for part in _spans(wire, numbers, raw_fields))
    raw += b"".join(np.array(integers(wire, f), stored).tobytes() for number in varint_fields for f in numbers.get(number, ()))
    dims = shape(wire, span)
    if len(raw) != np.dtype(stored).itemsize * math.prod(dims):
        return None
    return np.frombuffer(raw, stored).reshape(dims)


def floats(wire: WireReader, span: Span) -> list[Span] | None:
    """Find the numbers of the tensor at ``span``, in order; None unless it is float32 and stored in the file."""
    kind, numbers = _numbers(wire, span)
    return _spans(wire, numbers, _READ["float32"][1]) if kind == "float32" else None


def _numbers(wire: WireReader, span: Span) -> tuple[str, dict[int, list[Field]]]:
    """The type of a tensor, and the fields that hold its numbers."""
    kind = ""
    numbers: dict[int, list[Field]] = {}
    for f in wire.fields(span, "a tensor"):
        if f.number == 2:
            kind = DTYPES.get(wire.integer(f, "the type of a tensor"), "")
        elif f.number in (4, 7, 9):
            numbers.setdefault(f.number, []).append(f)
    return kind, numbers


def _spans(wire: WireReader, numbers: dict[int, list[Field]], fields: tuple[int, ...]) -> list[Span]:
    return [wire.message(f, "the numbers of a tensor") for number in fields for f in numbers.get(number, ())]


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
