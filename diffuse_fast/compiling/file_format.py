"""The bytes of a compiled model. ``docs/compiled.md`` describes them, and ``csrc/compiled/reader.cpp`` reads and checks them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from .. import _core
from ..artifact.document import Conditioning, Range

MAGIC = b"\x89DFP\r\n\x1a\n"
BYTE_ORDER = 0x0102_0304
VERSION = 1
ALIGNMENT = 64
PRECISIONS = ("float32", "float32-fast")
TYPES = ("float32", "int64", "int32", "bool")

_SECTIONS = 7
_HEADER = struct.Struct("<8sIIQII")  # what, byte order, version, size, number of sections, checksum


@dataclass(frozen=True, kw_only=True)
class CompiledModel:
    """What a file holds.

    Attributes:
        name: Name of the model.
        about: JSON for people and tools; the library does not read it.
        shape: Shape of one sample.
        value_range: Range of the samples; None if they have none.
        conditioning: The conditioning inputs.
        steps: Steps of the plan.
        guidance_scale: The guidance that the plan contains.
        evaluations: Network outputs that a row may weigh: 1, or 2 with guidance.
        registers: Registers of the plan.
        initial_scale: The state before the first row is this times N(0, 1).
        rows: The rows, as records of ``kernels.rows.ROW``.
        times: The network's time at each row, float32.
        precision: Precision of the network.
        exact: Operations that compute as in float32 whatever the precision.
        words: The program.
        constants: Its initializers and folded constants, in the order of its buffers.
        sizes: Their elements.
    """

    name: str
    about: str
    shape: tuple[int, ...]
    value_range: Range | None
    conditioning: tuple[Conditioning, ...]
    steps: int
    guidance_scale: float
    evaluations: int
    registers: int
    initial_scale: float
    rows: np.ndarray
    times: np.ndarray
    precision: str
    exact: Sequence[int]
    words: np.ndarray
    constants: Iterable[np.ndarray]
    sizes: Sequence[int]


def write(model: CompiledModel, file: BinaryIO) -> None:
    """Write a compiled model to an empty file that can seek. One constant at a time is in memory."""
    sections = [
        _description(model),
        model.about.encode(),
        model.words.astype("<i8").tobytes(),
        np.array(model.exact, "<i8").tobytes(),
        model.rows.astype(model.rows.dtype.newbyteorder("<")).tobytes(),
        model.times.astype("<f4").tobytes(),
    ]
    lengths = [*map(len, sections), _constants_length(model.sizes)]
    table, at = b"", _HEADER.size + 16 * _SECTIONS
    for length in lengths:
        at += _padding(at)
        table += struct.pack("<QQ", at, length)
        at += length

    out = _Checked(file)
    file.seek(_HEADER.size)
    out.write(table)
    for section in sections:
        out.pad()
        out.write(section)
    out.pad()  # also where there are no constants
    for constant in model.constants:
        out.pad()
        out.write(constant.astype("<f4", copy=False).data.cast("B"))
    file.seek(0)
    file.write(_HEADER.pack(MAGIC, BYTE_ORDER, VERSION, at, _SECTIONS, out.checksum))


def _description(model: CompiledModel) -> bytes:
    low, high = model.value_range or (0.0, 0.0)
    numbers = (_core.NOISE_VERSION, PRECISIONS.index(model.precision), model.registers, model.evaluations, model.steps)
    out = struct.pack("<IIIIIfd", *numbers, model.initial_scale, model.guidance_scale)
    out += struct.pack("<Idd", model.value_range is not None, low, high)
    out += _text(model.name) + _shape(model.shape) + struct.pack("<I", len(model.conditioning))
    for c in model.conditioning:
        out += _text(c.name) + struct.pack("<I", TYPES.index(c.dtype)) + _shape(c.shape)
        out += struct.pack("<Idq", c.null is not None, c.null or 0.0, -1 if c.classes is None else c.classes)
    return out


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded


def _shape(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f"<I{len(shape)}q", len(shape), *shape)


def _padding(at: int) -> int:
    return -at % ALIGNMENT


def _constants_length(sizes: Sequence[int]) -> int:
    end = 0
    for size in sizes:
        end += _padding(end) + 4 * size
    return end


class _Checked:
    """Writes to a file behind its header, and sums up what it wrote."""

    def __init__(self, file: BinaryIO):
        self._file, self._at, self.checksum = file, _HEADER.size, 0

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._at += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def pad(self) -> None:
        self.write(bytes(_padding(self._at)))
