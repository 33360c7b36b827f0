"""A reader of protobuf's wire format for untrusted files.

It visits fields in place and copies only what is read, so the cost depends on the number of fields and not on the size of the
weights. Every length is checked against the enclosing message before it is used, and the number of fields is limited, so no input
takes unbounded time or memory.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, overload

from ..errors import ArtifactError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# SDXL's UNet has about 500,000 fields outside its tensors. At this limit a malicious file takes seconds.
MAX_FIELDS = 4_000_000
MAX_STRING = 1 << 20
MAX_TEXT = 256 << 20  # bytes of all strings that are copied out of one file


def varint(value: int) -> bytes:
    """Encode a non-negative integer as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def bytes_field(number: int, data: bytes) -> bytes:
    """Encode a field that holds bytes: a string, a message or packed numbers."""
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def integer_field(number: int, value: int) -> bytes:
    """Encode a field that holds a signed 64-bit integer."""
    return varint(number << 3 | VARINT) + varint(value & (1 << 64) - 1)


class Buffer(Protocol):
    """``bytes`` or a memory-mapped file."""

    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __len__(self) -> int: ...


class Span(NamedTuple):
    """The range of bytes of a length-delimited field in the buffer."""

    start: int
    stop: int


class Field(NamedTuple):
    """One field.

    Attributes:
        number: Its number in the message.
        wire_type: ``VARINT``, ``FIXED64``, ``BYTES`` or ``FIXED32``.
        value: Its integer, for ``VARINT``.
        span: The range of its bytes, for ``BYTES``.
        begin: Where its key begins.
    """

    number: int
    wire_type: int
    value: int
    span: Span
    begin: int


_NOWHERE = Span(0, 0)


class WireReader:
    """Reads fields from a buffer, with a limit on how many fields and how much text are read in total."""

    def __init__(self, buffer: Buffer, max_fields: int = MAX_FIELDS):
        self.buffer = buffer
        self.root = Span(0, len(buffer))
        self._left = max_fields
        self._text_left = MAX_TEXT

    def fields(self, span: Span, what: str) -> Iterator[Field]:
        """Iterate over the fields of the message at ``span``.

        Args:
            span: The range of the message.
            what: Name of the message, for error messages.

        Raises:
            ArtifactError: the bytes are not a protobuf message, or the file has too many fields.
        """
        position, stop = span
        buffer = self.buffer
        while position < stop:
            self._left -= 1
            if self._left < 0:
                raise ArtifactError(f"the file has more than {MAX_FIELDS} protobuf fields; it is not read further.")
            begin = position
            # Nearly all keys and lengths take one byte.
            if (key := buffer[position]) < 0x80:
                position += 1
            else:
                key, position = self.varint(position, stop, what)
            number, wire_type = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise ArtifactError(f"{what}: a field is numbered {number}; the file is damaged or not an ONNX file.")
            if wire_type == BYTES:
                if position < stop and (length := buffer[position]) < 0x80:
                    start = position + 1
                else:
                    length, start = self.varint(position, stop, what)
                position = start + length
                self._inside(position, stop, what)
                yield Field(number, wire_type, 0, Span(start, position), begin)
            elif wire_type == VARINT:
                value, position = self.varint(position, stop, what)
                yield Field(number, wire_type, value, _NOWHERE, begin)
            elif wire_type in (FIXED32, FIXED64):
                position += 4 if wire_type == FIXED32 else 8
                self._inside(position, stop, what)
                yield Field(number, wire_type, 0, _NOWHERE, begin)
            else:
                raise ArtifactError(f"{what}: unknown wire type {wire_type}; the file is damaged or not an ONNX file.")

    def text(self, field: Field, what: str, limit: int = MAX_STRING) -> str:
        """Return the string of a field of at most ``limit`` bytes."""
        start, stop = self.message(field, what)
        if stop - start > limit:
            raise ArtifactError(f"{what} is {stop - start} bytes long; at most {limit} are read.")
        self._text_left -= stop - start
        if self._text_left < 0:
            raise ArtifactError(f"the names and metadata of the file take more than {MAX_TEXT} bytes; it is not read further.")
        try:
            return self.buffer[start:stop].decode("utf-8")
        except UnicodeDecodeError:
            raise ArtifactError(f"{what} is not UTF-8; the file is damaged.") from None

    def message(self, field: Field, what: str) -> Span:
        """Return the range of a field's bytes."""
        if field.wire_type != BYTES:
            raise ArtifactError(f"{what} has wire type {field.wire_type}, not {BYTES}; the file is damaged.")
        return field.span

    def integer(self, field: Field, what: str) -> int:
        """Return the signed 64-bit integer of a field."""
        if field.wire_type != VARINT:
            raise ArtifactError(f"{what} has wire type {field.wire_type}, not {VARINT}; the file is damaged.")
        return field.value - (1 << 64) if field.value >= 1 << 63 else field.value

    def varint(self, position: int, stop: int, what: str) -> tuple[int, int]:
        """Decode a varint at ``position``; return its value and the position after it."""
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
        raise ArtifactError(f"{what} holds a number of more than 64 bits; the file is damaged or not an ONNX file.")

    @staticmethod
    def _inside(position: int, stop: int, what: str) -> None:
        if position > stop:
            raise ArtifactError(
                f"{what}: a field reaches {position - stop} bytes beyond its end; the file is truncated or damaged."
            )
