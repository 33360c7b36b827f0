"""A walker over protobuf's wire format that trusts nothing.

It visits fields in place and copies only what is asked for, so a file of any size costs what its structure costs. Every
length is checked against the message that holds it before it is used, and the number of fields is bounded, so no input
takes unbounded time or memory.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ..errors import ArtifactError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# A UNet of the size of SDXL's has about 500,000 fields outside its tensors. At this bound a hostile file costs seconds.
MAX_FIELDS = 4_000_000
MAX_STRING = 1 << 20
MAX_TEXT = 256 << 20  # bytes of all strings together that are copied out of a file


def varint(value: int) -> bytes:
    """A number from 0 as the wire has it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, data: bytes) -> bytes:
    """A field that holds bytes: a string, a message, packed numbers."""
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def integer(number: int, value: int) -> bytes:
    """A field that holds a signed 64-bit integer."""
    return varint(number << 3 | VARINT) + varint(value & (1 << 64) - 1)


class Buffer(Protocol):
    """bytes, or a mapped file."""

    def __getitem__(self, key: slice, /) -> bytes: ...
    def __len__(self) -> int: ...


class Span(NamedTuple):
    """Where a length-delimited field lies in the buffer."""

    start: int
    stop: int


class Field(NamedTuple):
    """One field: its number, its wire type, either its integer or where its bytes lie, and where its key begins."""

    number: int
    wire: int
    value: int
    span: Span
    begin: int


_NOWHERE = Span(0, 0)


class Wire:
    """A buffer, and how many more fields may be visited in it."""

    def __init__(self, buffer: Buffer, max_fields: int = MAX_FIELDS):
        self.buffer = buffer
        self.whole = Span(0, len(buffer))
        self._left = max_fields
        self._text_left = MAX_TEXT

    def fields(self, span: Span, what: str) -> Iterator[Field]:
        """The fields of the message at ``span``.

        Args:
            span: Where the message lies.
            what: What the message is called, for error messages.

        Raises:
            ArtifactError: the bytes are no protobuf message, or the file has too many fields.
        """
        position, stop = span
        while position < stop:
            self._left -= 1
            if self._left < 0:
                raise ArtifactError("the file has more protobuf fields than any network; it is not read further.")
            begin = position
            key, position = self._varint(position, stop, what)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise ArtifactError(f"{what}: a field is numbered {number}; the file is damaged or no ONNX file.")
            if wire == BYTES:
                length, start = self._varint(position, stop, what)
                position = start + length
                self._inside(position, stop, what)
                yield Field(number, wire, 0, Span(start, position), begin)
            elif wire == VARINT:
                value, position = self._varint(position, stop, what)
                yield Field(number, wire, value, _NOWHERE, begin)
            elif wire in (FIXED32, FIXED64):
                position += 4 if wire == FIXED32 else 8
                self._inside(position, stop, what)
                yield Field(number, wire, 0, _NOWHERE, begin)
            else:
                raise ArtifactError(f"{what}: unknown wire type {wire}; the file is damaged or no ONNX file.")

    def text(self, field: Field, what: str, limit: int = MAX_STRING) -> str:
        """The string of a field, which may be ``limit`` bytes long."""
        start, stop = self.message(field, what)
        if stop - start > limit:
            raise ArtifactError(f"{what} is {stop - start} bytes long; at most {limit} are read.")
        self._text_left -= stop - start
        if self._text_left < 0:
            raise ArtifactError(f"the names and metadata of the file are more than {MAX_TEXT} bytes; it is not read further.")
        try:
            return self.buffer[start:stop].decode("utf-8")
        except UnicodeDecodeError:
            raise ArtifactError(f"{what} is not UTF-8; the file is damaged.") from None

    def message(self, field: Field, what: str) -> Span:
        """Where the bytes of a field lie."""
        if field.wire != BYTES:
            raise ArtifactError(f"{what} has wire type {field.wire}, not {BYTES}; the file is damaged.")
        return field.span

    def integer(self, field: Field, what: str) -> int:
        """The signed 64-bit integer of a field."""
        if field.wire != VARINT:
            raise ArtifactError(f"{what} has wire type {field.wire}, not {VARINT}; the file is damaged.")
        return field.value - (1 << 64) if field.value >= 1 << 63 else field.value

    def _varint(self, position: int, stop: int, what: str) -> tuple[int, int]:
        chunk = self.buffer[position : min(position + 10, stop)]  # 64 bits take at most 10 bytes
        value = shift = 0
        for byte in chunk:
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value, position
            shift += 7
        if len(chunk) < 10:
            raise ArtifactError(f"{what} ends inside a number; the file is truncated or damaged.")
        raise ArtifactError(f"{what} holds a number of more than 64 bits; the file is damaged or no ONNX file.")

    @staticmethod
    def _inside(position: int, stop: int, what: str) -> None:
        if position > stop:
            raise ArtifactError(
                f"{what}: a field reaches {position - stop} bytes beyond its end; the file is truncated or damaged."
            )
