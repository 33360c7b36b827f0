"""Read the values of a TensorProto that are stored in the file. Field numbers are those of ``onnx.proto3``."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArtifactError
from .header import DTYPES
from .protobuf import VARINT, Field, Span, WireReader

MAX_PACKED = 1 << 20  # bytes of packed integers. Each becomes a Python object; shapes and axes are short

_RAW, _FLOATS = 9, 4  # fields that hold the values of a float32 tensor


def shape(wire: WireReader, span: Span) -> tuple[int, ...]:
    """Read the shape of the tensor at ``span``."""
    return tuple(n for f in wire.fields(span, "a tensor") if f.number == 1 for n in integers(wire, f))


def array(wire: WireReader, span: Span) -> np.ndarray | None:
    """Read the tensor at ``span``; None unless it is float32 and stored in the file."""
    spans = floats(wire, span)
    if spans is None:
        return None
    raw = b"".join(wire.buffer[slice(*part)] for part in spans)
    dims = shape(wire, span)
    return np.frombuffer(raw, "<f4").reshape(dims) if len(raw) == 4 * math.prod(dims) else None


def floats(wire: WireReader, span: Span) -> list[Span] | None:
    """Find the numbers of the tensor at ``span``, in order; None unless it is float32 and stored in the file."""
    kind = ""
    found: dict[int, list[Span]] = {_FLOATS: [], _RAW: []}
    for f in wire.fields(span, "a tensor"):
        if f.number == 2:
            kind = DTYPES.get(wire.integer(f, "the type of a tensor"), "")
        elif f.number in found:
            found[f.number].append(wire.message(f, "the numbers of a tensor"))
    return [*found[_FLOATS], *found[_RAW]] if kind == "float32" else None


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
